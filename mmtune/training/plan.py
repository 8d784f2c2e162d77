"""What a run needs: bytes of each part and of a step's longest batch, known before it starts."""

from dataclasses import dataclass
from typing import Any

import torch

from mmtune.conversation import IGNORE_INDEX, IMAGE_TOKEN_ID
from mmtune.data.collate import collate, collate_joined
from mmtune.models.dry_run import StepBytes, dry_step
from mmtune.models.precision import compute_dtype
from mmtune.models.vlm import VisionLanguageModel
from mmtune.schema import Config
from mmtune.training import checkpointing
from mmtune.training.checkpointing import LargestBatch
from mmtune.training.optimizer_bytes import optimizer_bytes, step_workspace
from mmtune.training.optimizers import optimizer_name
from mmtune.training.spread import ALONE, Held, Spread
from mmtune.training.start_table import PARTS, PartSize, part_size

CUDA_CONTEXT = 512 << 20
"""Bytes of a GPU's memory that the driver and the kernels' code take: 0.3 to 0.5 GiB by card; an assumption."""

CUDA_WORKSPACE = 64 << 20
"""Bytes that cuBLAS and the attention kernels keep for themselves: 8 to 64 MiB by card; an assumption."""

FRAGMENTS = 0.05
"""Share of what a step makes that the caching allocator holds and cannot use; an assumption."""

CPU_PROCESS = 640 << 20
"""Bytes of Python, torch and transformers in main memory, as they were measured."""


@dataclass(frozen=True)
class Target:
    """Where a run is planned for.

    Attributes:
        kind: `cuda` or `cpu`.
        name: as it is said, such as `a card of 8 GiB`.
        memory: bytes that the run may use, its own context included; None: not known.
        spread: over how many such devices, and how.
    """

    kind: str
    name: str
    memory: int | None = None
    spread: Spread = ALONE


def target_here(device: torch.device, name: str) -> Target:
    """Return a device of this machine, with what is free on it now and the context that a run brings."""
    kind, context = ("cuda", CUDA_CONTEXT) if device.type == "cuda" else ("cpu", CPU_PROCESS)
    return Target(kind, name, checkpointing.free_memory(device) + context)


@dataclass(frozen=True)
class PartBytes:
    """What a part of the model has in memory, in bytes.

    Attributes:
        name: `vision`, `projector` or `llm`.
        size: its numbers of weights.
        weights: the parameters themselves.
        constants: what a quantization keeps beside them.
        gradients: of what trains.
        optimizer: the optimizer's states.
    """

    name: str
    size: PartSize
    weights: int
    constants: int
    gradients: int
    optimizer: int


@dataclass(frozen=True)
class Plan:
    """The memory of a run.

    Attributes:
        parts: of the model.
        step: what a step on the longest batch has in memory beside weights and states.
        batch: the longest batch.
        num_checkpointed: blocks of the language model that are computed again.
        num_blocks: of all.
        workspace: bytes that the optimizer makes and gives back in its step, on one device.
        target: where the run is to be.
        compute_bytes: of a number in the dtype that is computed in.
    """

    parts: tuple[PartBytes, ...]
    step: StepBytes
    batch: LargestBatch
    num_checkpointed: int
    num_blocks: int
    workspace: int
    target: Target
    compute_bytes: int

    @property
    def held(self) -> Held:
        """What each device holds all the time."""
        whole = Held(
            sum(part.weights for part in self.parts),
            sum(part.constants for part in self.parts),
            sum(part.gradients for part in self.parts),
            sum(part.optimizer for part in self.parts),
        )
        return self.target.spread.held(whole, self.num_trained, self.compute_bytes)

    @property
    def num_trained(self) -> int:
        """Numbers that train."""
        return sum(part.size.num_trained for part in self.parts)

    @property
    def always(self) -> int:
        """Bytes of weights, gradients, the optimizer's states and the context: needed with any batch."""
        held = self.held
        needed = held.weights + held.constants + held.gradients + held.optimizer + held.buckets
        return needed + (CPU_PROCESS if self.target.kind == "cpu" else CUDA_CONTEXT + CUDA_WORKSPACE)

    @property
    def allocated(self) -> int:
        """Bytes of tensors at the peak: what `torch.cuda.max_memory_allocated` counts."""
        return sum(self.components.values()) - self.overhead

    @property
    def overhead(self) -> int:
        """Bytes of context, workspace and fragments on CUDA, or of the process on a CPU: estimated."""
        if self.target.kind == "cpu":
            return CPU_PROCESS
        return CUDA_CONTEXT + CUDA_WORKSPACE + round(FRAGMENTS * self.step.peak_bytes)

    @property
    def components(self) -> dict[str, int]:
        """Bytes at the peak of a step by what they are; their sum is the total."""
        made, held = self.step.peak, self.held
        workspace = self.target.spread.workspace(self.workspace, self.num_trained)
        share = held.gradients / self.step.gradients if self.step.gradients else 1.0
        gradients, others = round(share * made.get("gradients", 0)), self.step.peak_bytes - made.get("gradients", 0)
        if workspace > others + gradients - held.gradients:  # the optimizer's step is the peak
            made, gradients = {"activations": workspace}, held.gradients
        return {
            "weights": held.weights,
            "quantization constants": held.constants,
            "gradients": gradients,
            "buckets": held.buckets,
            "optimizer": held.optimizer,
            "activations": made.get("activations", 0),
            "logits": made.get("logits", 0),
            "vision": made.get("vision", 0),
            "overhead": self.overhead,
        }

    @property
    def total(self) -> int:
        """Bytes that the run needs at its peak."""
        return sum(self.components.values())

    @property
    def fits(self) -> bool | None:
        """Whether that is there; None where it is not known."""
        return None if self.target.memory is None else self.total <= self.target.memory


def make_plan(
    config: Config,
    model: VisionLanguageModel,
    batch: LargestBatch,
    target: Target,
    *,
    is_joined: bool,
    num_checkpointed: int,
) -> Plan:
    """Add up what a run needs.

    Args:
        config: of the run, with its batch size as a number.
        model: as it trains; on the meta device it has the figures of the real one.
        batch: the longest.
        target: where the run is to be.
        is_joined: the samples of a batch form one row, without padding.
        num_checkpointed: blocks that are computed again.
    """
    optim = optimizer_name(config.train.optim)
    trained = [value for value in model.parameters() if value.requires_grad]
    step = dry_step(
        model,
        batch_tensors(batch, model, is_joined=is_joined),
        dtype=compute_dtype(model.base_llm),
        image_shape=image_shape(config, model, batch.num_images),
        num_checkpointed=num_checkpointed,
        accumulates=config.train.gradient_accumulation_steps > 1,
    )
    workspace = step_workspace(optim, trained) if target.kind == "cuda" else 0
    parts = model_bytes(config, model)
    size = compute_dtype(model.base_llm).itemsize
    return Plan(parts, step, batch, num_checkpointed, len(model.blocks), workspace, target, size)


def model_bytes(config: Config, model: VisionLanguageModel) -> tuple[PartBytes, ...]:
    """Return the bytes of each part: weights, constants, gradients, states."""
    optim, found = optimizer_name(config.train.optim), []
    for name in PARTS:
        part = getattr(model, name)
        if part is None:
            continue
        quantization = config.model.llm.quantization if name == "llm" else None
        size, parameters = part_size(part, quantization), list(part.parameters())
        weights = sum(value.nbytes for value in parameters)
        trained = [value for value in parameters if value.requires_grad]
        gradients = sum(value.nbytes for value in trained)
        states = optimizer_bytes(optim, trained, config.train.optim_args)
        found.append(PartBytes(name, size, weights, size.num_bytes - weights, gradients, states))
    return tuple(found)


def image_shape(config: Config, model: VisionLanguageModel, num_images: int) -> tuple[int, ...] | None:
    """Return the shape of a batch's pixels, or of its features where these are on disk; None without images."""
    if model.vision is None or not num_images:
        return None
    if config.data.cache_vision_features:
        return num_images, model.vision.num_tokens, model.vision.hidden_size
    side = model.vision.preprocessing["image_size"]
    return num_images, 3, side, side


def batch_tensors(batch: LargestBatch, model: VisionLanguageModel, *, is_joined: bool) -> dict[str, Any]:
    """Return ids and labels of a batch without its pixels; every token of text is supervised, as none may be."""
    num_tokens = model.vision.num_tokens if model.vision is not None else 0
    items, left = [], batch.num_images
    for number, length in enumerate(batch.lengths):
        share = -(-left // (len(batch.lengths) - number))
        ids = torch.zeros(length, dtype=torch.int64)
        ids[: share * num_tokens] = IMAGE_TOKEN_ID
        assert int((ids == IMAGE_TOKEN_ID).sum()) == share * num_tokens, "the images of a batch take more than its rows"
        labels = ids.masked_fill(ids == IMAGE_TOKEN_ID, IGNORE_INDEX)
        labels[0] = IGNORE_INDEX
        items.append({"input_ids": ids, "labels": labels})
        left -= share
    return collate_joined(items) if is_joined else collate(items)
