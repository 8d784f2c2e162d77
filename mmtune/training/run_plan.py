"""The plan of a run that is about to start: how its steps are split, and what it says of its memory before step 1."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmtune.build_data import Reader
from mmtune.data.collate import collate_joined
from mmtune.data.dataset import PackedDataset, SampleDataset
from mmtune.data.stream import StreamDataset
from mmtune.errors import ModelError
from mmtune.models.device import choose_device
from mmtune.models.vlm import VisionLanguageModel
from mmtune.processes import num_processes
from mmtune.run_folder import write_json
from mmtune.schema import Config
from mmtune.schema_stream import is_streamed
from mmtune.training import checkpointing
from mmtune.training.batch_size import (
    PLAN_FILE,
    is_auto,
    log_split,
    recorded_split,
    share_of_process,
    with_largest_batch,
    with_split,
)
from mmtune.training.checkpointing import largest_batch
from mmtune.training.plan import Plan, make_plan, target_here
from mmtune.training.plan_model import planned_model, planned_rows
from mmtune.training.plan_table import plan_values, run_lines, split_values
from mmtune.training.rows import Collator
from mmtune.training.zero import spread_of_run

log = logging.getLogger(__name__)


def with_settled_split(config: Config, reader: Reader, checkpoint: Path | None) -> Config:
    """Return the config of a run with its batch size as a number, and the accumulation that several processes share.

    Args:
        config: of the run.
        reader: of its model.
        checkpoint: that it continues from; its split is kept, whatever memory is free now.

    Raises:
        CheckpointError: the checkpoint does not say how its steps were split.
        ConfigError: the global batch cannot be shared out to the processes.
    """
    if not is_auto(config):
        size = config.train.per_device_train_batch_size
        if num_processes() == 1 or config.train.global_batch_size is None:
            return config
        share_of_process(config)
        return with_split(config, int(size))
    device = choose_device(config.train.device)
    if checkpoint is not None:
        settled = recorded_split(config, checkpoint)
        log_split(settled, target_here(device, str(device)), f"as in {checkpoint}")
        return settled
    # Bad records are for the run to name; here they are left out.
    lenient = replace(config, data=replace(config.data, on_bad_record="skip"))
    rows = None if is_streamed(config.data) else planned_rows(lenient, reader)
    target = target_here(device, str(device))
    planned = planned_model(config, target.kind)
    target = replace(target, spread=spread_of_run(config.train, num_processes(), planned.model.config.hidden_size))
    settled = with_largest_batch(config, planned, target, rows)
    log_split(settled, target, "the largest that fits")
    return settled


def plan_of_run(
    config: Config,
    model: VisionLanguageModel,
    rows: SampleDataset | PackedDataset | StreamDataset,
    collator: Collator,
) -> Plan | None:
    """Plan a run with its real model, and say what it needs; None where the model cannot be followed, which is said.

    Args:
        config: of the run, its batch size a number.
        model: as it trains.
        rows: what it trains on.
        collator: makes its batches.
    """
    number = round(model.checkpointed_share * len(model.blocks))
    spread = spread_of_run(config.train, num_processes(), model.config.hidden_size)
    target = replace(target_here(model.device, str(model.device)), spread=spread)
    try:
        # Liger's kernels cannot be followed: they read memory, and a plan's tensors have none.
        followed = planned_model(config, model.device.type).model if config.train.use_liger_kernel else model
        plan = make_plan(
            config,
            followed,
            largest_batch(config, rows),
            target,
            is_joined=collator is collate_joined,
            num_checkpointed=number,
        )
    except ModelError as error:
        log.warning("the memory of this run is not known before it starts: %s", error.message)
        return None
    free = checkpointing.free_memory(model.device)
    loaded = sum(part.weights + part.constants for part in plan.parts)
    for line in run_lines(plan, free, loaded):
        log.info("%s", line)
    if plan.allocated - loaded > free:
        log.warning("that may not fit. `mmtune plan` with this config says what to change and what it saves.")
    return plan


def write_plan(folder: Path, config: Config, plan: Plan | None) -> None:
    """Write `plan.json`: how steps are split into batches, and the memory that was planned."""
    values: dict[str, Any] = {"split": split_values(config)}
    write_json(folder / PLAN_FILE, values | ({} if plan is None else plan_values(plan)))
