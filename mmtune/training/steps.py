"""How many optimizer steps a run takes, known before a model loads."""

import logging
import math

from mmtune.data.batches import BatchSampler
from mmtune.data.dataset import PackedDataset, SampleDataset
from mmtune.data.sharing import SharedBatchSampler
from mmtune.data.stream import StreamDataset
from mmtune.processes import num_processes, rank
from mmtune.schema import Config
from mmtune.schema_train import batch_size_of

log = logging.getLogger(__name__)
FEW_STEPS = 20


def batch_sampler(config: Config, rows: SampleDataset | PackedDataset) -> BatchSampler:
    """Return the batches of a run, those of all its processes."""
    return BatchSampler(
        rows.lengths,
        rows.num_images > 0,
        config.train.seed,
        batch_size=batch_size_of(config),
        max_tokens=config.data.max_tokens_per_batch,
        group_by_length=config.data.group_by_length,
        batches_per_step=batches_per_step(config),
    )


def own_batch_sampler(config: Config, rows: SampleDataset | PackedDataset) -> BatchSampler | SharedBatchSampler:
    """Return the batches of a run that this process trains on."""
    sampler = batch_sampler(config, rows)
    if num_processes() == 1:
        return sampler
    return SharedBatchSampler(sampler, rows.lengths, rank(), num_processes())


def batches_per_step(config: Config, num_ranks: int | None = None) -> int:
    """Return the batches of an optimizer step, those of all ranks: of as many as named, or of this run's processes."""
    return config.train.gradient_accumulation_steps * (num_processes() if num_ranks is None else num_ranks)


def places_of_step(config: Config, rows: SampleDataset | PackedDataset | StreamDataset, steps_done: int) -> list[str]:
    """Return the places of the records in each batch of a step of this process; none of a stream.

    Args:
        config: of the run.
        rows: what it trains on.
        steps_done: optimizer steps before it.
    """
    if isinstance(rows, StreamDataset):
        return []
    sampler, size = own_batch_sampler(config, rows), config.train.gradient_accumulation_steps
    epoch, step = divmod(steps_done, max(math.ceil(len(sampler) / size), 1))
    sampler.set_epoch(epoch)
    batches = list(sampler)[step * size : (step + 1) * size]
    return [", ".join(rows.place(row) for row in batch) for batch in batches]


def num_batches_per_epoch(config: Config, rows: SampleDataset | PackedDataset) -> int:
    """Return how many batches an epoch has, those of all processes."""
    return len(batch_sampler(config, rows))


def num_optimizer_steps(config: Config, num_batches: int, num_ranks: int | None = None) -> int:
    """Return the optimizer steps of a run, as the Trainer counts them.

    The last step of an epoch may hold fewer batches than the others.

    Args:
        config: of the run.
        num_batches: of an epoch.
        num_ranks: that train together; None: the processes of this run.

    Worked example: 100 batches, accumulation 16 and 3 epochs are 7 steps an epoch and 21 in all.
    """
    if config.train.max_steps > 0:
        return config.train.max_steps
    steps_per_epoch = max(math.ceil(num_batches / batches_per_step(config, num_ranks)), 1)
    return math.ceil(config.train.num_train_epochs * steps_per_epoch)


def total_steps(config: Config, rows: SampleDataset | PackedDataset | StreamDataset) -> int:
    """Return the optimizer steps of a run; of a stream the config names them."""
    num_batches = 0 if isinstance(rows, StreamDataset) else num_batches_per_epoch(config, rows)
    return num_optimizer_steps(config, num_batches)


def num_saves(config: Config, first_step: int, last_step: int) -> int:
    """Return how many checkpoints are written after one step up to another, with that of the last."""
    every = config.train.save_steps
    return 0 if every == 0 else math.ceil(last_step / every) - first_step // every


def log_steps(config: Config, rows: SampleDataset | PackedDataset) -> None:
    """Say how many optimizer steps are to come, and warn when they are few: packing and accumulation eat them up."""
    steps = num_optimizer_steps(config, num_batches_per_epoch(config, rows))
    log.info("%d optimizer steps", steps)
    if steps < FEW_STEPS and config.train.max_steps < 0:
        log.warning(
            "only %d optimizer steps: a model learns little from so few. Raise train.num_train_epochs, or lower "
            "train.gradient_accumulation_steps.",
            steps,
        )
