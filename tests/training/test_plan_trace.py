"""What a plan says of a training step is what the allocator gives out in one."""

import json

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from mmtune.build import build_parts
from mmtune.config import load_config
from mmtune.models import loss
from mmtune.models.dry_run import dry_step
from mmtune.models.precision import compute_dtype, computing_in
from mmtune.testing import write_tiny_llm
from mmtune.training.checkpointing import LargestBatch
from mmtune.training.plan import batch_tensors, image_shape
from mmtune.training.plan_model import as_trained, planned_model

CPU = torch.device("cpu")
MID = {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 6, "num_attention_heads": 8}
BATCH = LargestBatch((160, 96, 128, 160), 3)
PADDED = LargestBatch((160, 160, 160, 160), 3)
NF4 = "model.llm.quantization=nf4"
BF16 = "model.llm.dtype=bfloat16"
FULL = ("model.llm.tune=full", "model.adapter=null")
PLAIN = ("train.recompute_activations=false", "train.fused_lora=false")
CASES = {
    "lora, all blocks again": (BATCH, 6, ()),
    "lora, accumulated": (BATCH, 0, ("train.gradient_accumulation_steps=2",)),
    "padded rows": (PADDED, 0, ("data.padding_free=false",)),
    "bfloat16": (BATCH, 3, (BF16,)),
    "nf4 by PEFT": (BATCH, 6, (NF4, "train.fused_lora=false")),
    "vision too": (BATCH, 0, ("model.vision.tune=full",)),
}
MORE = {
    "lora": (BATCH, 0, ()),
    "lora, half of the blocks again": (BATCH, 3, ()),
    "nf4": (BATCH, 0, (NF4,)),
    "padded rows, eager": (PADDED, 0, ("data.padding_free=false", "model.llm.attn_implementation=eager")),
    "bfloat16, all blocks again": (BATCH, 6, (BF16,)),
    "int8": (BATCH, 0, ("model.llm.quantization=int8",)),
    "nothing recomputed or fused": (BATCH, 0, PLAIN),
    "full": (BATCH, 0, (*FULL, "train.gradient_accumulation_steps=2")),
    "full in bfloat16, all blocks again": (BATCH, 6, (*FULL, BF16)),
    "projector alone": (BATCH, 0, ("model.llm.tune=frozen", "model.adapter=null")),
    "dora": (BATCH, 0, ("model.adapter={kind: dora, r: 4}",)),
}
MARK = 1013


@pytest.fixture(scope="session")
def mid_llm(tmp_path_factory):
    return write_tiny_llm(tmp_path_factory.mktemp("mid") / "llm", **MID)


@pytest.fixture
def config_of(workspace, mid_llm):
    def load(*changes):
        options = [f"model.llm.name_or_path={mid_llm}", "model.init_from=null", *changes]
        return load_config("finetune.yaml", options, "sft")

    return load


def real_step(config, batch, num_checkpointed, path):
    """The most that the allocator had given out at a time in a step, and at the end of its forward pass."""
    model = build_parts(config.model, CPU).model
    given = batch_tensors(batch, model, is_joined=as_trained(config, model, ()).is_joined)
    if num_checkpointed:
        model.checkpointed_share = num_checkpointed / len(model.blocks)
        model.gradient_checkpointing_enable()
    model.train()

    def step():
        for value in model.parameters():
            value.grad = None
            if value.requires_grad and config.train.gradient_accumulation_steps > 1:
                value.grad = torch.zeros_like(value)
        pixels = torch.zeros(image_shape(config, model, batch.num_images))
        with computing_in(compute_dtype(model.base_llm), CPU):
            total = model(**given, pixel_values=pixels)["loss"]
        torch.zeros(MARK)  # a size that nothing else has
        total.backward()

    step()  # what is made once: tables, weights that a quantization moves
    model.zero_grad(set_to_none=True)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    profiler.export_chrome_trace(str(path))
    events = [event for event in json.loads(path.read_text())["traceEvents"] if event.get("name") == "[memory]"]
    events.sort(key=lambda event: event["ts"])
    sizes = [event["args"]["Total Allocated"] for event in events]
    before = sizes[0] - events[0]["args"]["Bytes"]
    (mark,) = [number for number, event in enumerate(events) if event["args"]["Bytes"] == 4 * MARK]
    return max(sizes) - before, sizes[mark - 1] - before


def hold_equal(config, batch, num_checkpointed, path):
    planned = planned_model(config, "cpu")
    found = dry_step(
        planned.model,
        batch_tensors(batch, planned.model, is_joined=planned.is_joined),
        dtype=compute_dtype(planned.model.base_llm),
        image_shape=image_shape(config, planned.model, batch.num_images),
        num_checkpointed=num_checkpointed,
        accumulates=config.train.gradient_accumulation_steps > 1,
    )
    peak, kept = real_step(config, batch, num_checkpointed, path)
    assert found.peak_bytes == pytest.approx(peak, rel=0.02)
    assert sum(found.kept.values()) == pytest.approx(kept, rel=0.02)
    return found


@pytest.mark.parametrize("case", CASES)
def test_a_dry_step_takes_what_the_allocator_gives_to_a_real_one(case, config_of, tmp_path):
    batch, num_checkpointed, changes = CASES[case]
    hold_equal(config_of(*changes), batch, num_checkpointed, tmp_path / "trace.json")


@pytest.mark.slow
@pytest.mark.parametrize("case", MORE)
def test_so_it_does_in_other_settings(case, config_of, tmp_path):
    batch, num_checkpointed, changes = MORE[case]
    hold_equal(config_of(*changes), batch, num_checkpointed, tmp_path / "trace.json")


def test_a_chunked_loss_holds_a_chunk_of_logits(config_of, tmp_path, monkeypatch):
    whole = hold_equal(config_of(), BATCH, 6, tmp_path / "trace.json")
    monkeypatch.setattr(loss, "MAX_LOGITS", 64 * 261)
    chunked = hold_equal(config_of(), BATCH, 6, tmp_path / "trace.json")
    assert chunked.peak.get("logits", 0) + chunked.kept.get("logits", 0) < 0.5 * whole.kept["logits"]
