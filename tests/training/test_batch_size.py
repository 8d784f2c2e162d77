"""`per_device_train_batch_size: auto` is the explicit split that it chooses, and a resumed run keeps it."""

import json
import re
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from mmtune.build_data import build_reader
from mmtune.cli import main
from mmtune.config import load_config
from mmtune.errors import CheckpointError, ConfigError
from mmtune.training import checkpointing
from mmtune.training.batch_size import recorded_split, with_largest_batch
from mmtune.training.plan import CPU_PROCESS, Target
from mmtune.training.plan_model import plan_for, planned_model, planned_rows
from mmtune.training.run_plan import with_settled_split

AUTO = ("train.per_device_train_batch_size=auto", "train.global_batch_size=6")
START = ("model.init_from=null", "train.max_steps=4", "train.save_steps=2")


@pytest.fixture
def sft(workspace, monkeypatch):
    """Return a function that trains in the workspace with so many bytes free."""

    def run(name, free, *changes):
        monkeypatch.setattr(checkpointing, "free_memory", lambda device: free)
        return main(["sft", "finetune.yaml", f"train.output_dir=runs/{name}", *START, *changes])

    return run


def needs():
    """The bytes that a batch of each size takes of the memory that is left to a run."""
    config = load_config("finetune.yaml", [*AUTO, *START], "sft")
    planned, found = planned_model(config, "cpu"), {}
    for size in (1, 2, 3, 6):
        split = load_config("finetune.yaml", [*START, f"train.per_device_train_batch_size={size}"], "sft")
        split.train.gradient_accumulation_steps = 6 // size
        plan = plan_for(split, planned, Target("cpu", "cpu"), planned_rows(split))
        found[size] = int((plan.total) / 0.9) + 1 - CPU_PROCESS
    return found


def weights(name):
    return {path.name: load_file(path) for path in Path("runs", name).glob("*/*.safetensors")} | {
        "projector": load_file(Path("runs", name, "projector.safetensors"))
    }


def equal(one, other):
    return one.keys() == other.keys() and all(
        (one[file][key] == value).all() for file in one for key, value in other[file].items()
    )


def test_it_is_the_explicit_split_and_a_resume_keeps_it(sft, capsys):
    room = needs()
    assert sft("auto", room[3], *AUTO) == 0
    assert "batches of 3 x accumulation 2 = global batch 6" in capsys.readouterr().err
    split = {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 2}
    assert json.loads(Path("runs/auto/checkpoint-2/plan.json").read_text())["split"] == split
    assert sft("explicit", room[3], *(f"train.{key}={value}" for key, value in split.items())) == 0
    assert equal(weights("auto"), weights("explicit"))

    shutil.copytree("runs/auto", "runs/cut")
    (Path("runs/cut") / "manifest.json").unlink()
    shutil.rmtree("runs/cut/checkpoint-4", ignore_errors=True)
    capsys.readouterr()
    assert sft("cut", 1 << 50, *AUTO, "--resume") == 0
    assert "batches of 3 x accumulation 2" in capsys.readouterr().err
    assert equal(weights("cut"), weights("auto"))
    assert json.loads(Path("runs/cut/plan.json").read_text())["split"] == split


def test_the_largest_that_divides_and_fits_is_taken(workspace):
    room = needs()
    config = load_config("finetune.yaml", [*AUTO, *START], "sft")
    planned, rows = planned_model(config, "cpu"), planned_rows(config)
    sizes = {
        memory: with_largest_batch(
            config, planned, Target("cpu", "cpu", memory), rows
        ).train.per_device_train_batch_size
        for memory in (1, room[2] + CPU_PROCESS, room[3] + CPU_PROCESS - 64, room[6] + CPU_PROCESS, 1 << 50)
    }
    assert list(sizes.values()) == [1, 2, 2, 6, 6]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            AUTO[:1],
            "'train.per_device_train_batch_size: auto' needs the batch that it splits. Set 'train.global_batch_",
        ),
        ((*AUTO, "train.gradient_accumulation_steps=2"), "sets the accumulation itself (got train.gradient_accumulat"),
        (("train.global_batch_size=7",), "must be a multiple of train.per_device_train_batch_size=2 (got 7)."),
        (
            ("train.global_batch_size=8", "train.gradient_accumulation_steps=2"),
            "'train.global_batch_size: 8' is not train.per_device_train_batch_size=2 x train.gradient_accumulation_",
        ),
        (("train.global_batch_size=0",), "'train.global_batch_size' must be greater than 0 (got 0)."),
        (
            (*AUTO, "data.max_tokens_per_batch=512"),
            "counts samples, and batches by tokens (data.max_tokens_per_batch: ",
        ),
        (
            ("train.per_device_train_batch_size=many",),
            "'train.per_device_train_batch_size' must be a whole number or auto",
        ),
    ],
)
def test_what_does_not_go_together_is_one_line(workspace, capsys, changes, message):
    assert main(["sft", "finetune.yaml", *changes]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_the_accumulation_follows_from_the_global_batch(workspace):
    load = load_config("finetune.yaml", ["train.global_batch_size=8"], "sft")
    assert load.train.gradient_accumulation_steps == 4
    same = load_config("finetune.yaml", ["train.global_batch_size=8", "train.gradient_accumulation_steps=4"], "sft")
    assert same == load


def test_a_checkpoint_must_say_its_split(workspace, tmp_path):
    config = load_config("finetune.yaml", list(AUTO), "sft")
    with pytest.raises(CheckpointError, match=r"has no plan\.json"):
        recorded_split(config, tmp_path)
    (tmp_path / "plan.json").write_text(json.dumps({"split": {"per_device_train_batch_size": 4}}))
    with pytest.raises(CheckpointError, match=r"do not divide train\.global_batch_size=6"):
        recorded_split(config, tmp_path)


def test_several_processes_share_the_global_batch(workspace, monkeypatch):
    changes = ["train.global_batch_size=12", "train.per_device_train_batch_size=2"]
    config = load_config("pretrain.yaml", changes, "pretrain")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert with_settled_split(config, build_reader(config.model), None).train.gradient_accumulation_steps == 2
    monkeypatch.setenv("WORLD_SIZE", "4")
    told = "train.global_batch_size: must be a multiple of 8 for 4 processes of train.per_device_train_batch_size=2"
    with pytest.raises(ConfigError, match=re.escape(told)):
        with_settled_split(config, build_reader(config.model), None)
