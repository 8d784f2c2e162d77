"""`gradient_checkpointing: auto`: computes again as few blocks as memory asks for, from the first on."""

import logging
import math
from dataclasses import dataclass

from mmtune.data.batches import joined_sizes, padded_sizes
from mmtune.data.dataset import PackedDataset, SampleDataset
from mmtune.data.stream import StreamDataset
from mmtune.models.device import free_memory
from mmtune.models.kept_memory import measure_blocks, measure_images
from mmtune.models.loss import MAX_LOGITS
from mmtune.models.precision import compute_dtype
from mmtune.models.vlm import VisionLanguageModel
from mmtune.schema import Config
from mmtune.schema_train import batch_size_of
from mmtune.sizes import gib
from mmtune.training.optimizer_bytes import optimizer_bytes
from mmtune.training.optimizers import optimizer_name
from mmtune.training.steps import batch_sampler

log = logging.getLogger(__name__)
MARGIN = 0.1
"""Share of the free memory that is left alone: gradients of activations, kernels' workspace, fragments."""

MAX_EPOCHS = 3
"""Epochs whose batches are looked through for the largest one."""


@dataclass(frozen=True)
class LargestBatch:
    """The batch that costs most.

    Attributes:
        lengths: tokens of each row or sample, padding included.
        num_images: in it.
    """

    lengths: tuple[int, ...]
    num_images: int

    @property
    def num_tokens(self) -> int:
        """All slots."""
        return sum(self.lengths)


@dataclass(frozen=True)
class MemoryNeed:
    """What a training step needs beside the weights, in bytes, for its largest batch.

    Attributes:
        blocks: kept by each block that is not computed again.
        block_input: kept by each block that is.
        rest: kept outside of the blocks: vision, projector, norm, and what the loss keeps of the logits.
        logits: made for the loss and given back.
        states: gradients and the optimizer's states.
    """

    blocks: tuple[float, ...]
    block_input: float
    rest: float
    logits: float
    states: float

    def kept(self, num_checkpointed: int = 0) -> float:
        """Return what is kept at the end of a forward pass."""
        return self.rest + sum(self.blocks[num_checkpointed:]) + num_checkpointed * self.block_input

    def peak(self, num_checkpointed: int) -> float:
        """Return the most that is in use at a time.

        It is at the loss, or where a block has been computed again: those after it have gone by then.
        """
        again = max(self.blocks[:num_checkpointed], default=0.0)
        inputs = num_checkpointed * self.block_input
        after = sum(self.blocks[num_checkpointed:]) + self.logits
        return self.states + self.rest + inputs + max(after, again)

    def fewest_checkpointed(self, free: float) -> int:
        """Return the smallest number of blocks with which the peak fits; all of them where none does."""
        numbers = range(len(self.blocks) + 1)
        return next((number for number in numbers if self.peak(number) <= free * (1 - MARGIN)), len(self.blocks))


def checkpointed_share(
    config: Config,
    model: VisionLanguageModel,
    rows: SampleDataset | PackedDataset | StreamDataset,
    free: int | None = None,
) -> float:
    """Return the share of the language model's blocks that a run computes again; 0: gradient checkpointing is off.

    Args:
        config: of the run.
        model: as it trains, on its device.
        rows: what it trains on.
        free: bytes that may be used; None asks the device.
    """
    wanted = config.train.gradient_checkpointing
    if wanted != "auto":
        return config.train.gradient_checkpointing_fraction if wanted else 0.0
    free = free_memory(model.device) if free is None else free
    batch = largest_batch(config, rows)
    need = memory_need(config, model, batch)
    number, total = need.fewest_checkpointed(free), len(need.blocks)
    log.info(
        "gradient checkpointing of %d of %d blocks: the largest batch, %d tokens and %d images, keeps %s without and %s"
        " with it; gradients and optimizer take %s; %s are free",
        number, total, batch.num_tokens, batch.num_images, gib(need.kept()), gib(need.kept(number)),
        gib(need.states), gib(free),
    )  # fmt: skip
    if need.peak(number) > free * (1 - MARGIN):
        log.warning(
            "that may not be enough: about %s are needed. Lower train.per_device_train_batch_size or data.max_length.",
            gib(need.peak(number)),
        )
    return number / total if total else 0.0


def memory_need(config: Config, model: VisionLanguageModel, batch: LargestBatch) -> MemoryNeed:
    """Measure and add up what a step on a batch needs."""
    blocks, outside = measure_blocks(model)
    has_features = config.data.cache_vision_features
    rest = outside(batch.lengths) + batch.num_images * measure_images(model, has_features=has_features)
    dtype = compute_dtype(model.base_llm)
    num_logits = min(batch.num_tokens * model.config.vocab_size, MAX_LOGITS)
    is_one_chunk = num_logits < MAX_LOGITS  # else each chunk is made again, and none is kept
    return MemoryNeed(
        blocks=tuple(block(batch.lengths) for block in blocks),
        block_input=float(batch.num_tokens * model.config.hidden_size * dtype.itemsize),
        rest=rest + (4.0 * num_logits if is_one_chunk else 0.0),
        logits=float(num_logits * (dtype.itemsize + 4 + (0 if is_one_chunk else 4))),
        states=state_bytes(config, model),
    )


def state_bytes(config: Config, model: VisionLanguageModel) -> int:
    """Return the bytes of the gradients and of the optimizer's states of all that trains."""
    return sum(value.nbytes for value in model.parameters() if value.requires_grad) + states_of(config, model)


def states_of(config: Config, model: VisionLanguageModel) -> int:
    """Return the bytes of the optimizer's states of all that trains."""
    trained = [value for value in model.parameters() if value.requires_grad]
    return optimizer_bytes(optimizer_name(config.train.optim), trained, config.train.optim_args)


def largest_batch(config: Config, rows: SampleDataset | PackedDataset | StreamDataset) -> LargestBatch:
    """Return the batch of a run that takes most memory; of a stream, a full one of the longest samples."""
    if isinstance(rows, StreamDataset):
        size = batch_size_of(config)
        return LargestBatch((config.data.max_length,) * size, size if config.model.vision else 0)
    sampler, lengths, num_images = batch_sampler(config, rows), rows.lengths, rows.num_images
    found = LargestBatch((), 0)
    num_epochs = min(math.ceil(config.train.num_train_epochs), MAX_EPOCHS) if sampler.is_composed_anew else 1
    for epoch in range(num_epochs):
        sampler.set_epoch(epoch)
        batches = sampler.batches()
        tokens = (joined_sizes if config.data.padding_free else padded_sizes)(batches, lengths)
        if tokens.max() > found.num_tokens:
            batch = batches[int(tokens.argmax())]
            sizes: list[int] = lengths[batch].tolist()
            if not config.data.padding_free:
                sizes = [max(sizes)] * len(sizes)
            found = LargestBatch(tuple(sizes), int(num_images[batch].sum()))
    return found
