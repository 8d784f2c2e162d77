"""A run that was interrupted and goes on is the run that was not: weights, losses, rates, images that are read."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mmtune.cli import main
from mmtune.data.images import ImageTransform
from mmtune.models.weights import read_tensors
from mmtune.testing import write_tiny_llm
from mmtune.training.callbacks import read_log

ONE = "train.per_device_train_batch_size=1"
PACKED = ("data.pack_to_max_length=true", "data.max_length=96", "train.dataloader_num_workers=2", ONE)
ACCUMULATED = (ONE, "train.gradient_accumulation_steps=3", "train.logging_steps=4")
GROUPED = ("data.group_by_length=true", "data.padding_free=false", "train.max_grad_norm=0")
RUNS = {
    "pretrain packed": ("pretrain", PACKED),
    "pretrain accumulated": ("pretrain", ACCUMULATED),
    "finetune packed": ("finetune", PACKED),
    "finetune accumulated": ("finetune", (*ACCUMULATED, "train.neftune_noise_alpha=5", "data.train.0.repeat=2.5")),
    "finetune grouped": ("finetune", GROUPED),
    "sft packed": ("sft", PACKED),
    "sft": ("sft", ("train.dataloader_num_workers=1", "data.pack_to_max_length=false", ONE)),
}


@pytest.fixture
def ready(workspace, models):
    """A projector to start from, and text to train on."""
    talk = [{"from": "human", "value": "Say it"}, {"from": "gpt", "value": "Hello, you."}]
    records = [{"conversations": [talk[0], {"from": "gpt", "value": "It. " * (1 + n % 5)}]} for n in range(12)]
    Path("text.json").write_text(json.dumps(records))
    Path("sft.yaml").write_text(
        json.dumps(
            {
                "model": {
                    "llm": {"name_or_path": str(models / "llm"), "chat_template": "chatml", "dtype": "float32"},
                    "adapter": {"kind": "lora", "r": 4, "lora_alpha": 8, "lora_dropout": 0.1},
                },
                "data": {"train": [{"path": "text.json"}], "max_length": 96},
                "train": {
                    "output_dir": "runs/sft", "gradient_accumulation_steps": 1, "per_device_train_batch_size": 2,
                    "num_train_epochs": 2, "learning_rate": 5e-3, "save_steps": 3, "save_total_limit": None,
                    "device": "cpu",
                },
            }
        )
    )  # fmt: skip
    assert main(["pretrain", "pretrain.yaml", "train.save_steps=0"]) == 0
    return workspace


def train(verb, name, *changes):
    return main([verb, f"{verb}.yaml", f"train.output_dir=runs/{name}", *changes])


def weights(name):
    files = [*sorted(Path("runs", name).glob("*.safetensors")), Path("runs", name, "adapter/adapter_model.safetensors")]
    return {f"{path.name}:{key}": value for path in files if path.is_file() for key, value in load_file(path).items()}


def assert_equal(name, other):
    found, expected = weights(name), weights(other)
    assert found.keys() == expected.keys()
    assert [key for key in expected if not torch.equal(found[key], expected[key])] == []


def logged(name):
    keys = ("step", "epoch", "loss", "learning_rate", "grad_norm")
    return [[entry[key] for key in keys] for entry in read_log(Path("runs", name, "log.jsonl")) if "loss" in entry]


def interrupted(name, step):
    """A copy of a run as it was after a step."""
    shutil.copytree(f"runs/{name}/checkpoint-{step}", f"runs/again/checkpoint-{step}")
    shutil.copy(f"runs/{name}/log.jsonl", "runs/again/log.jsonl")


@pytest.mark.parametrize("run", RUNS)
def test_every_checkpoint_goes_on_bit_for_bit(ready, run):
    verb, changes = RUNS[run]
    assert train(verb, "straight", *changes) == 0
    steps = sorted(int(path.name.partition("-")[2]) for path in Path("runs/straight").glob("checkpoint-*"))
    assert len(steps) >= 3
    for step in (steps[0], steps[-2]):
        interrupted("straight", step)
        assert train(verb, "again", *changes, "--resume") == 0
        assert_equal("again", "straight")
        assert logged("again") == logged("straight")
        shutil.rmtree("runs/again")


def test_the_state_of_every_later_checkpoint_is_the_same_too(ready):
    assert train("finetune", "straight") == 0
    interrupted("straight", 3)
    assert train("finetune", "again", "--resume") == 0
    for name in ("optimizer", "random"):
        found, expected = (
            read_tensors(Path(f"runs/{run}/checkpoint-9/state/{name}.safetensors")) for run in ("again", "straight")
        )
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], value) for key, value in expected.items())
    for name in ("optimizer", "random"):
        texts = [Path(f"runs/{run}/checkpoint-9/state/{name}.json").read_text() for run in ("again", "straight")]
        assert texts[0] == texts[1]


def test_a_resumed_run_reads_only_images_that_it_trains_on(ready, monkeypatch):
    assert train("pretrain", "straight", "train.per_device_train_batch_size=1") == 0
    interrupted("straight", 6)
    opened = []
    open_image = ImageTransform.open
    monkeypatch.setattr(ImageTransform, "open", lambda self, *given: opened.append(given) or open_image(self, *given))
    assert train("pretrain", "again", "train.per_device_train_batch_size=1", "--resume") == 0
    assert len(opened) == 20 - 6
    assert_equal("again", "straight")


def test_intervals_may_change(ready):
    assert train("finetune", "straight") == 0
    interrupted("straight", 3)
    assert train("finetune", "again", "train.save_steps=2", "train.logging_steps=5", "--resume") == 0
    assert_equal("again", "straight")
    assert sorted(path.name for path in Path("runs/again").glob("checkpoint-*")) == [
        "checkpoint-10", "checkpoint-3", "checkpoint-4", "checkpoint-6", "checkpoint-8",
    ]  # fmt: skip


def test_more_epochs_go_on_from_a_complete_run(ready, capsys):
    constant = ("train.lr_scheduler_type=constant", "train.warmup_ratio=0")
    assert train("finetune", "straight", *constant, "train.num_train_epochs=3") == 0
    assert train("finetune", "again", *constant) == 0
    assert train("finetune", "again", *constant, "train.num_train_epochs=3", "--resume") == 0
    assert "train.num_train_epochs: 2.0 -> 3.0: the learning rate follows" in capsys.readouterr().err
    assert_equal("again", "straight")


def test_the_rate_of_a_longer_run_follows_its_own_schedule(ready):
    assert train("finetune", "straight", "train.num_train_epochs=3") == 0
    assert train("finetune", "again") == 0
    assert train("finetune", "again", "train.num_train_epochs=3", "--resume") == 0
    rates = [[rate for step, _, _, rate, _ in logged(name) if step > 10] for name in ("again", "straight")]
    assert rates[0] == rates[1]
    assert len(rates[0]) == 5


def test_the_same_samples_a_step_in_other_batches_go_on(ready, capsys):
    """As after an error of memory: half the batch, twice the accumulation."""
    assert train("pretrain", "straight") == 0
    interrupted("straight", 3)
    halved = ("train.per_device_train_batch_size=1", "train.gradient_accumulation_steps=2")
    assert train("pretrain", "again", *halved, "train.gradient_checkpointing=true", "--resume") == 0
    assert "results are the same but for rounding" in capsys.readouterr().err
    found, expected = weights("again"), weights("straight")
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-3, atol=2e-5)


def test_moved_files_go_on(ready, models):
    assert train("finetune", "straight") == 0
    interrupted("straight", 6)
    shutil.copytree(models / "llm", "moved_llm")
    Path("moved").mkdir()
    for path in [*Path().glob("*.png"), Path("dialogues.json")]:
        shutil.move(path, "moved")
    moved = ("data.train.0.path=moved/dialogues.json", "model.llm.name_or_path=moved_llm")
    assert train("finetune", "again", *moved, "--resume") == 0
    assert_equal("again", "straight")


def test_appended_data_goes_on_and_says_what_changes(ready, capsys):
    assert train("finetune", "straight") == 0
    interrupted("straight", 6)
    talk = [{"from": "human", "value": "And you?"}, {"from": "gpt", "value": "Fine."}]
    more = [{"conversations": talk}] * 2
    Path("dialogues.json").write_text(json.dumps([*json.loads(Path("dialogues.json").read_text()), *more]))
    assert train("finetune", "again", "--resume") == 0
    assert "data.train[0] (dialogues.json) has 2 samples more: 10 -> 12 samples an epoch" in capsys.readouterr().err
    assert logged("again")[-1][0] == 12
    Path("more.json").write_text(json.dumps(more))
    assert train("finetune", "again", "data.train=[{path: dialogues.json}, {path: more.json}]", "--resume") == 0
    assert "more.json is new: 12 -> 14 samples an epoch" in capsys.readouterr().err
    assert json.loads(Path("runs/again/manifest.json").read_text())["steps"] == 14


REFUSED = {
    "rate": (("train.learning_rate=1e-3",), "train.learning_rate: 0.005 -> 0.001"),
    "several": (("train.seed=7", "data.max_length=200"), "data.max_length: 256 -> 200; train.seed: 42 -> 7"),
    "template": (("model.llm.chat_template=internlm2_chat",), "model.llm.chat_template: chatml -> internlm2_chat"),
    "batch": (("train.per_device_train_batch_size=1",), "train.per_device_train_batch_size: 2 -> 1"),
    "mix": (("data.train.0.repeat=2",), "data.train[0].repeat: 1.0 -> 2.0"),
    "model": (("model.llm.name_or_path=other_llm",), "llm: other weights in"),
    "other records": (("data.train.0.path=edited.json",), "data.train[0] (edited.json): its 10 samples have changed"),
    "fewer records": (("data.train.0.path=shorter.json",), "data.train[0] (shorter.json): its 10 samples have changed"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_must_not_change_is_refused_with_a_list(ready, case, capsys):
    changes, message = REFUSED[case]
    assert train("finetune", "straight", "train.max_steps=4") == 0
    interrupted("straight", 3)
    write_tiny_llm("other_llm", seed=1)
    records = json.loads(Path("dialogues.json").read_text())
    Path("shorter.json").write_text(json.dumps(records[:-1]))
    records[2]["conversations"][1]["value"] += " Indeed."
    Path("edited.json").write_text(json.dumps(records))
    capsys.readouterr()
    assert train("finetune", "again", "train.max_steps=4", *changes, "--resume") == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("mmtune: ")]
    assert message in line
    assert line.endswith("Set these back, or start a new run.")


def test_another_number_of_processes_is_refused(ready, capsys):
    assert train("pretrain", "straight", "train.max_steps=4") == 0
    path = Path("runs/straight/checkpoint-3/manifest.json")
    path.write_text(path.read_text().replace('"world_size": 1', '"world_size": 2'))
    interrupted("straight", 3)
    assert train("pretrain", "again", "train.max_steps=4", "--resume") == 2
    assert "(got 1). Start 2 with torchrun, or start another run from its weights: " in capsys.readouterr().err


def test_every_checkpoint_is_a_usable_model(ready, capsys):
    """Of both stages: asked, compared, exported, merged and started from by its path alone."""
    assert train("finetune", "tuned") == 0
    assert train("pretrain", "captions") == 0
    shutil.move("runs/tuned/checkpoint-3", "elsewhere")
    shutil.move("runs/captions/checkpoint-3", "projector")
    Path("questions.json").write_text(json.dumps([{"question": "What colour?", "image": "0.png", "reference": "red"}]))
    for folder in ("elsewhere", "projector"):
        assert main(["chat", folder, "--image", "0.png", "--prompt", "What colour?", "--max-new-tokens", "3"]) == 0
        assert train("finetune", f"from_{folder}", f"model.init_from={folder}", "train.max_steps=1") == 0
    asked = ["--questions", "questions.json", "--max-new-tokens", "3", "--output", "compared"]
    assert main(["compare", "base", "projector", "elsewhere", *asked]) == 0
    assert main(["export", "elsewhere", "--format", "merged", "--output", "exported"]) == 0
    assert main(["merge", "elsewhere", "runs/tuned", "--weights", "0.5", "0.5", "-o", "merged"]) == 0


def test_an_earlier_checkpoint_that_is_named_is_where_it_goes_on(ready, capsys):
    assert train("pretrain", "straight") == 0
    shutil.copytree("runs/straight", "runs/again")
    Path("runs/again/manifest.json").unlink()
    assert train("pretrain", "again", "--resume", "runs/again/checkpoint-3") == 0
    assert "checkpoint-6 lies after checkpoint-3: it is now set-aside-checkpoint-6" in capsys.readouterr().err
    assert_equal("again", "straight")
    assert logged("again") == logged("straight")
