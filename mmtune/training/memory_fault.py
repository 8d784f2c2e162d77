"""What to say when memory runs out in a step: which batch it was, and what each change would save."""

from dataclasses import replace

import torch

from mmtune.data.dataset import PackedDataset, SampleDataset
from mmtune.data.stream import StreamDataset
from mmtune.errors import MMTuneError
from mmtune.schema import Config
from mmtune.sizes import gib
from mmtune.training.plan import Plan
from mmtune.training.plan_advice import advise
from mmtune.training.plan_model import planned_model

WANTED = 0.5
"""Changes are listed until the need is this share of what was planned, which was too little or is not there."""

NOT_PLANNED = "train.gradient_checkpointing=true, a smaller batch with more accumulation, a smaller data.max_length"


def memory_fault(
    config: Config,
    rows: SampleDataset | PackedDataset | StreamDataset,
    plan: Plan | None,
    step: int,
    batch: tuple[int, int],
) -> str:
    """Return the sentences for an error of memory.

    The model is planned anew without weights, so that this takes hardly any memory itself.

    Args:
        config: of the run, its batch size a number.
        rows: what it trains on.
        plan: that the run said at its start; None where its model cannot be followed.
        step: in which memory ran out, from 1.
        batch: tokens and images of its batch.
    """
    tokens, images = batch
    where = f"at step {step}, in a batch of {tokens} tokens and {images} image{'' if images == 1 else 's'}"
    if plan is None:
        return f"{where}. Change in this order: {NOT_PLANNED}."
    there = "" if plan.target.memory is None else f", {gib(plan.target.memory)} were there"
    where = f"{where} (planned: {gib(plan.total)}{there})"
    try:
        known = None if isinstance(rows, StreamDataset) else rows
        less = replace(plan, target=replace(plan.target, memory=round(plan.total * WANTED)))
        found = advise(config, less, planned_model(config, plan.target.kind), known)
    except (MMTuneError, RuntimeError, MemoryError):  # so little is left that not even that can be done
        torch.cuda.empty_cache()
        return f"{where}. Change in this order: {NOT_PLANNED}."
    changes = [f"{advice.change.words} saves {gib(advice.saved)}" for advice in found]
    if not changes:
        return f"{where}. Nothing of the config would save memory: take a smaller model or a larger card."
    return f"{where}. Change in this order, until it fits: {'; '.join(changes)}."
