"""How long a run takes: its longest batch is trained once on the device, and the rest is a rule of three."""

import time
from dataclasses import dataclass
from typing import Any

import torch

from mmtune.build import build_parts
from mmtune.models.device import choose_device, synchronize
from mmtune.models.precision import computing_in
from mmtune.schema import Config
from mmtune.training.meter import peak_memory_bytes
from mmtune.training.plan import Plan, batch_tensors, image_shape
from mmtune.training.plan_model import PlannedModel, as_trained, planned_dtype

NUM_RUNS = 2
"""The first one warms up."""


@dataclass(frozen=True)
class Probe:
    """What was measured.

    Attributes:
        device: `cuda` or `cpu`.
        seconds: of the forward and backward pass of the longest batch.
        tokens: in it, padding included.
        peak_bytes: of tensors on CUDA, of the process on a CPU.
    """

    device: str
    seconds: float
    tokens: int
    peak_bytes: int

    def run_seconds(self, num_tokens: float) -> float:
        """Return the time of a run that trains on so many tokens, all its epochs together."""
        return self.seconds * num_tokens / self.tokens


def probe(config: Config, plan: Plan) -> Probe:
    """Build the model with its weights and run the longest batch on the device of the config.

    Raises:
        MMTuneError: the model cannot be loaded.
    """
    device = choose_device(config.train.device)
    model = build_parts(config.model, device).model
    planned: PlannedModel = as_trained(config, model, ())
    shape = image_shape(config, model, plan.batch.num_images)
    batch: dict[str, Any] = batch_tensors(plan.batch, model, is_joined=planned.is_joined)
    batch = {key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in batch.items()}
    if shape is not None:
        batch["pixel_values" if len(shape) == 4 else "image_features"] = torch.zeros(shape, device=device)
    if plan.num_checkpointed:
        model.checkpointed_share = plan.num_checkpointed / plan.num_blocks
        model.gradient_checkpointing_enable()
    model.train()
    seconds = 0.0
    for _ in range(NUM_RUNS):
        model.zero_grad(set_to_none=True)
        started = time.perf_counter()
        with computing_in(planned_dtype(config.model.llm.dtype, device.type), device):
            loss = model(**batch)["loss"]
        loss.backward()
        synchronize(device)
        seconds = time.perf_counter() - started
    return Probe(device.type, seconds, plan.batch.num_tokens, peak_memory_bytes(device))
