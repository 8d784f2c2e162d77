"""`per_device_train_batch_size: auto`: the largest batch that fits; the global batch stays as it is."""

import copy
import logging
from dataclasses import replace
from pathlib import Path

from mmtune.errors import CheckpointError, ConfigError
from mmtune.processes import num_processes
from mmtune.run_folder import read_json
from mmtune.schema import Config
from mmtune.sizes import gib
from mmtune.training.plan import Target
from mmtune.training.plan_model import PlannedModel, Rows, plan_for

log = logging.getLogger(__name__)
AUTO = "auto"
PLAN_FILE = "plan.json"
MARGIN = 0.1
"""Share of the memory that is left alone: what is not counted, and what grows."""


def is_auto(config: Config) -> bool:
    """Whether the batch of a device is to be chosen."""
    return config.train.per_device_train_batch_size == AUTO


def with_split(config: Config, size: int) -> Config:
    """Return a config with batches of `size` on each device, and the accumulation that makes the global batch."""
    config = copy.deepcopy(config)
    assert config.train.global_batch_size is not None, "the config refuses auto without it"
    config.train.per_device_train_batch_size = size
    config.train.gradient_accumulation_steps = config.train.global_batch_size // (size * num_processes())
    return config


def share_of_process(config: Config) -> int:
    """Return the samples of a step that each process trains on, where the config says the global batch.

    Raises:
        ConfigError: they cannot be shared out.
    """
    whole, size = config.train.global_batch_size, config.train.per_device_train_batch_size
    assert whole is not None
    least = num_processes() * (1 if size == AUTO else int(size))
    if whole % least:
        each = "" if size == AUTO else f" of train.per_device_train_batch_size={size}"
        message = f"must be a multiple of {least} for {num_processes()} processes{each} (got {whole})."
        raise ConfigError("train.global_batch_size", message)
    return whole // num_processes()


def with_largest_batch(config: Config, planned: PlannedModel, target: Target, rows: Rows | None) -> Config:
    """Return a config with the largest batch that divides the global one and fits, and the accumulation that follows.

    Where nothing fits, or the memory is not known, batches hold one sample.

    Args:
        config: with `per_device_train_batch_size: auto`.
        planned: its model.
        target: where it is to run.
        rows: its data; None assumes full rows.
    """
    whole = share_of_process(config)
    sizes = [size for size in range(1, whole + 1) if whole % size == 0]
    lowest, highest = 0, len(sizes) - 1 if target.memory is not None else 0
    while lowest < highest:
        middle = (lowest + highest + 1) // 2
        if _fits(with_split(config, sizes[middle]), planned, target, rows):
            lowest = middle
        else:
            highest = middle - 1
    return with_split(config, sizes[lowest])


def _fits(config: Config, planned: PlannedModel, target: Target, rows: Rows | None) -> bool:
    """Whether a run fits, with all blocks computed again where the config leaves that to be chosen."""
    assert target.memory is not None
    smallest = plan_for(config, planned, replace(target, memory=None), rows)
    return smallest.total <= target.memory * (1 - MARGIN)


def recorded_split(config: Config, checkpoint: Path) -> Config:
    """Return a config with the split of the checkpoint that a run continues from, so that it goes on bit for bit.

    Raises:
        CheckpointError: the checkpoint does not say it.
    """
    path = checkpoint / PLAN_FILE
    if not path.is_file():
        message = f"has no {PLAN_FILE}, which says how its steps were split. Set train.per_device_train_batch_size."
        raise CheckpointError(checkpoint, message)
    size = read_json(path)["split"]["per_device_train_batch_size"]
    whole = config.train.global_batch_size
    if whole is None or whole % size:
        message = f"its batches of {size} do not divide train.global_batch_size={whole}. Set that of the run."
        raise CheckpointError(path, message)
    return with_split(config, size)


def log_split(config: Config, target: Target, where: str) -> None:
    """Say how a step is split, and why."""
    train = config.train
    memory = "" if target.memory is None else f" for {gib(target.memory)}"
    processes = f" x {num_processes()} processes" if num_processes() > 1 else ""
    log.info(
        "batches of %s x accumulation %d%s = global batch %s%s (%s)",
        train.per_device_train_batch_size, train.gradient_accumulation_steps, processes, train.global_batch_size,
        memory, where,
    )  # fmt: skip
