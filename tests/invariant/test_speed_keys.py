"""Each key that makes training faster or smaller turns off, and the run is the same without it."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from mmtune.cli import main
from mmtune.models.vlm import VisionLanguageModel

SAME = ("model.adapter.lora_dropout=0.0", "train.save_steps=0")


def train(name, *changes):
    assert main(["finetune", "finetune.yaml", *SAME, f"train.output_dir=runs/{name}", *changes]) == 0
    folder = Path("runs", name)
    losses = [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]
    return losses, load_file(folder / "projector.safetensors") | load_file(folder / "adapter/adapter_model.safetensors")


@pytest.fixture
def pretrained(workspace):
    assert main(["pretrain", "pretrain.yaml", "train.max_steps=1"]) == 0


@pytest.mark.parametrize(
    "off",
    [
        "data.padding_free=false",
        "train.recompute_activations=false",
        "train.fused_lora=false",
        "train.optim=adamw_torch",
        "train.gradient_checkpointing=true",
    ],
)
def test_a_run_is_the_same_with_and_without(pretrained, off):
    losses, weights = train("usual")
    found, other = train("other", off)
    assert found == pytest.approx(losses, rel=1e-4)
    for key, value in weights.items():
        torch.testing.assert_close(other[key], value, rtol=1e-2, atol=2e-4, msg=key)


def test_cached_vision_features_are_off_unless_asked_for(pretrained):
    losses, _ = train("usual")
    found, _ = train("other", "data.cache_vision_features=true")
    assert found == pytest.approx(losses, rel=1e-4)


@pytest.mark.parametrize(("fraction", "recomputed"), [(1.0, 4), (0.5, 2), (0.3, 2), (0.01, 1)])
def test_a_fraction_of_the_blocks_is_computed_again(fraction, recomputed):
    torch.manual_seed(0)
    shape = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4}
    model = VisionLanguageModel(LlamaForCausalLM(LlamaConfig(**shape, num_attention_heads=4))).train()
    ids = torch.randint(0, 64, (2, 12))

    def gradients():
        model.zero_grad()
        model(ids, ids)["loss"].backward()
        return {name: value.grad.clone() for name, value in model.named_parameters()}

    expected = gradients()
    calls = []
    for block in model.base_llm.model.layers:
        block.mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    model.checkpointed_share = fraction
    model.activation_checkpointing_enable()
    found = gradients()
    assert len(calls) == 4 + recomputed
    assert all(torch.equal(found[name], value) for name, value in expected.items())
