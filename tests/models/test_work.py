"""The operations of a step as counted, held against those that run."""

import copy

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from mmtune.data.collate import collate
from mmtune.models.adapters import attach_adapter
from mmtune.models.projector import Projector
from mmtune.models.vision_towers import transformers_tower
from mmtune.models.vlm import VisionLanguageModel
from mmtune.models.work import StepWork, forward_flops, matmul_rate
from mmtune.testing import write_tiny_clip

SHAPE = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}
LINEAR = ("mm", "addmm")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return transformers_tower(str(write_tiny_clip(tmp_path_factory.mktemp("clip")))).requires_grad_(False)


def model_of(kind, clip):
    torch.manual_seed(0)
    llm = LlamaForCausalLM(LlamaConfig(**SHAPE, **HEADS, attn_implementation="eager")).requires_grad_(kind == "full")
    if kind == "lora":
        llm = attach_adapter(llm, {"kind": "lora", "r": 4})
    projector = Projector("mlp2x_gelu", clip.hidden_size, 32, False)
    return VisionLanguageModel(llm, copy.deepcopy(clip), projector)


def batch_of(num_images):
    ids = torch.randint(0, 64, (2, 40))
    ids[:num_images, 3:19] = -200
    labels = ids.masked_fill(torch.arange(40) < 30, -100)
    items = [{"input_ids": row, "labels": label} for row, label in zip(ids, labels, strict=True)]
    for item in items[:num_images]:
        item["pixel_values"] = torch.rand(1, 3, 32, 32)
    return collate(items)


def counted(counter, names):
    totals = counter.get_flop_counts().get("Global", {})
    return sum(flops for operation, flops in totals.items() if operation.__name__ in names)


@pytest.mark.parametrize("num_images", [2, 0])
@pytest.mark.parametrize("kind", ["frozen", "lora", "full"])
def test_linear_layers_are_counted_as_they_run(clip, kind, num_images):
    """All but the first block's gradients of its inputs, which nothing below needs where no image is trained."""
    model = model_of(kind, clip).train()
    batch = batch_of(num_images)
    with FlopCounterMode(display=False) as counter:
        model(**batch)["loss"].backward()
    work = StepWork(model, 32)
    vision = num_images * forward_flops(model.vision, 32)
    run = counted(counter, LINEAR)
    with FlopCounterMode(display=False) as images, torch.no_grad():
        if num_images:
            model.vision(batch["pixel_values"])
    run -= counted(images, LINEAR)
    expected = work.flops(batch["sample_lengths"], num_images, int((batch["labels"] != -100).sum())) - vision
    expected -= work.per_pair * 2 * 40 * 41 / 2
    assert run == pytest.approx(expected, rel=0.03 if kind != "frozen" or num_images else 1e-9)


def test_attention_counts_the_pairs_that_see_each_other(clip):
    """Eager attention runs the whole square, which is 2 n / (n + 1) times the pairs."""
    model = model_of("full", clip).train()
    batch = batch_of(0)
    with FlopCounterMode(display=False) as counter:
        model(**batch)["loss"].backward()
    pairs = StepWork(model, 32).per_pair * 2 * 40 * 41 / 2
    assert counted(counter, ("bmm",)) == pytest.approx(pairs * 2 * 40 / 41, rel=1e-3)


def test_an_image_costs_what_its_encoder_runs(clip):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        clip.tower.set_attn_implementation("eager")
        clip(torch.rand(1, 3, 32, 32))
        clip.tower.set_attn_implementation("sdpa")
    assert forward_flops(clip, 32) == pytest.approx(counter.get_total_flops(), rel=1e-6)
    assert next(clip.parameters()).device.type == "cpu", "it is followed in shape, not moved"


def test_a_frozen_model_below_the_projector_costs_forward_and_the_gradients_of_inputs(clip):
    frozen, full = (StepWork(model_of(kind, clip), 32) for kind in ("frozen", "full"))
    assert full.per_token == pytest.approx(1.5 * frozen.per_token)
    text = model_of("frozen", clip)
    text.projector.requires_grad_(False)
    assert StepWork(text, 32).per_token == pytest.approx(frozen.per_token / 2)


def test_the_rate_of_a_matrix_product_is_a_rate():
    rate = matmul_rate(torch.device("cpu"), torch.float32)
    assert 1e8 < rate < 1e14
