"""Training of a bfloat16 model: what trains stays fp32, computes in bfloat16, learns, resumes bit for bit."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mmtune.cli import main
from mmtune.training.trainer import RunTrainer

BF16 = ("model.llm.dtype=bfloat16", "train.fused_lora=false", "train.num_train_epochs=3")


def train(verb, *changes):
    assert main([verb, f"{verb}.yaml", *BF16, *changes]) == 0


def losses(folder):
    return [json.loads(line)["loss"] for line in Path(folder, "log.jsonl").read_text().splitlines()]


@pytest.fixture
def seen(monkeypatch):
    """The dtypes of what projector and LoRA layers compute in training, and of their weights."""
    dtypes, step = {}, RunTrainer.training_step

    def watched(self, *given, **named):
        for name, module in self.vlm.named_modules():
            is_watched = isinstance(module, torch.nn.Linear) and ("lora_" in name or name.startswith("projector."))
            if is_watched and name not in dtypes:
                dtypes[name] = (module.weight.dtype, None)
                module.register_forward_hook(
                    lambda module, _, out, name=name: dtypes.update({name: (module.weight.dtype, out.dtype)})
                )
        return step(self, *given, **named)

    monkeypatch.setattr(RunTrainer, "training_step", watched)
    return dtypes


def test_what_trains_is_fp32_and_computes_in_bfloat16(workspace, seen):
    train("pretrain")
    train("finetune")
    assert any("lora_" in name for name in seen)
    assert any(name.startswith("projector.") for name in seen)
    assert set(seen.values()) == {(torch.float32, torch.bfloat16)}
    assert losses("runs/finetune")[-1] < losses("runs/finetune")[0]


def test_the_losses_are_near_those_of_fp32_with_and_without_fused_lora(workspace):
    train("pretrain", "train.max_steps=1")
    train("finetune", "train.output_dir=runs/bf16", "model.adapter.lora_dropout=0.0")
    train("finetune", "train.output_dir=runs/fused", "model.adapter.lora_dropout=0.0", "train.fused_lora=true")
    exact = ["train.output_dir=runs/fp32", "model.adapter.lora_dropout=0.0", "train.fused_lora=true"]
    train("finetune", *exact, "model.llm.dtype=float32")
    for name in ("bf16", "fused"):
        assert losses(f"runs/{name}") == pytest.approx(losses("runs/fp32"), rel=0.03)


def test_resume_is_exact(workspace):
    train("pretrain", "train.output_dir=runs/straight", "train.save_steps=4")
    Path("runs/again").mkdir()
    Path("runs/straight/checkpoint-4").rename("runs/again/checkpoint-4")
    train("pretrain", "train.output_dir=runs/again", "train.save_steps=4", "--resume")
    straight, again = (load_file(f"runs/{name}/projector.safetensors") for name in ("straight", "again"))
    assert all(torch.equal(again[name], value) for name, value in straight.items())
    assert all(value.dtype == torch.float32 for value in again.values())
