"""Runs that must come out the same, through the real command line."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training_workspace import fit

from mmtune.build import build_parts, calibrate_projector, load_initial_weights
from mmtune.build_data import build_reader
from mmtune.cli import main
from mmtune.config import load_config
from mmtune.testing import write_tiny_llm
from mmtune.training.callbacks import read_log
from mmtune.training.data import prepare_data

WEIGHTS = {
    "pretrain": ["projector.safetensors"],
    "finetune": ["projector.safetensors", "adapter/adapter_model.safetensors"],
}


def train(verb, *overrides):
    assert main([verb, f"{verb}.yaml", *overrides]) == 0


def weights(folder, verb):
    return {f"{file}:{k}": v for file in WEIGHTS[verb] for k, v in load_file(Path(folder) / file).items()}


def assert_same(found, expected, **tolerance):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if tolerance:
            torch.testing.assert_close(found[name], value, **tolerance, msg=lambda text, name=name: f"{name}: {text}")
        else:
            assert torch.equal(found[name], value), f"{name} differs"


@pytest.fixture
def pretrained(workspace):
    train("pretrain")
    return workspace


EIGHT_BIT = ("train.optim=paged_adamw_8bit", "model.llm.name_or_path=wide_llm", "model.init_from=runs/wide_pretrain")
"""With an adapter of rank 32 on width 128: smaller weights keep 32-bit states."""


@pytest.mark.parametrize(("verb", "changes"), [("pretrain", ()), ("finetune", ()), ("finetune", EIGHT_BIT)])
@pytest.mark.parametrize("step", [3, 6])
def test_resume_equals_straight_bit_for_bit(pretrained, verb, changes, step):
    if changes:
        write_tiny_llm("wide_llm", hidden_size=128, intermediate_size=128)
        train("pretrain", "model.llm.name_or_path=wide_llm", "train.output_dir=runs/wide_pretrain")
        changes = (*changes, "model.adapter.r=32")
    train(verb, *changes) if verb == "finetune" else None
    straight = Path("runs") / verb
    shutil.copytree(straight / f"checkpoint-{step}", f"runs/again/checkpoint-{step}")
    shutil.copy(straight / "log.jsonl", "runs/again/log.jsonl")
    train(verb, "train.output_dir=runs/again", *changes, "--resume")
    assert_same(weights("runs/again", verb), weights(straight, verb))
    losses = [[entry["loss"] for entry in read_log(run / "log.jsonl")] for run in (straight, Path("runs/again"))]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 10


@pytest.mark.parametrize("verb", ["pretrain", "finetune"])
def test_the_same_config_gives_the_same_weights(pretrained, verb):
    train(verb) if verb == "finetune" else None
    train(verb, "train.output_dir=runs/again")
    assert_same(weights("runs/again", verb), weights(f"runs/{verb}", verb))


@pytest.mark.parametrize("verb", ["pretrain", "finetune"])
def test_accumulation_2x1_equals_1x2(pretrained, verb):
    exact = ["model.adapter.lora_dropout=0.0"] if verb == "finetune" else []
    for batch, accumulation in ((2, 1), (1, 2)):
        sizes = [
            f"train.per_device_train_batch_size={batch}",
            f"train.gradient_accumulation_steps={accumulation}",
        ]
        train(verb, f"train.output_dir=runs/{batch}x{accumulation}", *sizes, *exact)
    assert_same(weights("runs/1x2", verb), weights("runs/2x1", verb), rtol=1e-3, atol=2e-5)


def test_gradient_checkpointing_changes_nothing(pretrained):
    train("pretrain", "train.output_dir=runs/again", "train.gradient_checkpointing=true")
    assert_same(weights("runs/again", "pretrain"), weights("runs/pretrain", "pretrain"), rtol=1e-5, atol=1e-7)


def test_worker_processes_change_nothing(pretrained):
    train("pretrain", "train.output_dir=runs/again", "train.dataloader_num_workers=1")
    assert_same(weights("runs/again", "pretrain"), weights("runs/pretrain", "pretrain"))


@pytest.mark.parametrize("verb", ["pretrain", "finetune"])
def test_only_what_is_meant_to_train_changes(pretrained, verb, tmp_path):
    config = load_config(f"{verb}.yaml", [f"train.output_dir={tmp_path / 'fit'}", "train.save_steps=0"], verb)
    torch.manual_seed(0)
    parts = build_parts(config.model, torch.device("cpu"))
    dataset, _ = prepare_data(config, build_reader(config.model), tmp_path)
    if verb == "finetune":
        load_initial_weights(config.model, parts)
    else:
        told = []
        calibrate_projector(config.model, parts, dataset, lambda what, done, total: told.append((done, total)))
        assert told[:2] == [(0, told[0][1]), (1, told[0][1])]  # one by one: nobody waits before a still screen
    before = {name: value.clone() for name, value in parts.model.state_dict().items()}
    fit(parts, config, dataset)
    changed = {name for name, value in parts.model.state_dict().items() if not torch.equal(value, before[name])}
    expected = {name for name, value in parts.model.named_parameters() if value.requires_grad}
    assert changed == expected
    assert all(name.startswith("projector.") or "lora_" in name for name in changed)
    assert any("lora_" in name for name in changed) == (verb == "finetune")


def test_the_loss_falls_and_the_projector_of_stage_1_is_where_stage_2_starts(pretrained):
    losses = [entry["loss"] for entry in read_log(Path("runs/pretrain/log.jsonl"))]
    assert losses[-1] < losses[0]
    train("finetune", "train.max_steps=1", "train.learning_rate=1e-30", "train.output_dir=runs/still")
    before, after = (load_file(f"runs/{name}/projector.safetensors") for name in ("pretrain", "still"))
    assert_same(after, before)
