"""Training from a stream: opened, batched and accounted for. What a stream gives is `data/stream.py`."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset
from transformers import TrainingArguments

from mmtune.build_data import Reader, build_stream
from mmtune.data.stream import StreamCounts, StreamDataset
from mmtune.errors import ConfigError
from mmtune.processes import num_processes
from mmtune.schema import Config
from mmtune.schema_train import batch_size_of
from mmtune.training.workers import worker_options

log = logging.getLogger(__name__)

Item = dict[str, torch.Tensor]
Fed = tuple[Item, StreamCounts]


def open_stream(config: Config, reader: Reader, problems_path: Path, first_step: int) -> StreamDataset:
    """Return the stream of a run, and say what that means for it.

    Args:
        config: of the run.
        reader: of its model.
        problems_path: where bad records are listed.
        first_step: of a run that continues: it reads from the beginning, in another order.

    Raises:
        DataError: a source cannot be read at all.
        ConfigError: a path draws a number of samples, or the run has several processes.
    """
    if num_processes() > 1:
        message = f"a stream is read by one process (got {num_processes()}). Start one, or leave stream out."
        raise ConfigError("data.train", message)
    if not first_step:
        problems_path.unlink(missing_ok=True)
    stream = build_stream(config, reader, first_step, problems_path)
    log.info("data is streamed: resume is approximate")
    if first_step:
        message = "the stream begins anew in another order (seed %d); what step %d had read is not passed over"
        log.info(message, stream.seed, first_step)
    log.info("%d optimizer steps", config.train.max_steps)
    return stream


def stream_facts(config: Config, stream: StreamDataset, problems_file: str, first_step: int) -> dict[str, Any]:
    """Return what `data.json` says of a stream: the counts since `first_step`, up to the last batch that was trained.

    A worker process may have read and listed further.
    """
    return {
        "sources": [{"path": source.path} for source in config.data.train],
        "resume": "approximate",
        "first_step": first_step,
        **asdict(stream.trained),
        "skipped_in": problems_file if stream.trained.num_bad_records else None,
    }


def log_stream(stream: StreamDataset, problems_file: str) -> None:
    """Say what was read."""
    counts = stream.trained
    message = "%d records read in %d passes: %d trained, %d in the buffer, %d skipped"
    numbers = (counts.num_trained_records, counts.num_buffered_records, counts.num_bad_records)
    log.info(message, counts.num_records, counts.num_passes, *numbers)
    if counts.num_bad_records:
        log.warning("skipped bad records; %s lists them", problems_file)
    if counts.num_cut_samples:
        log.warning("%d samples were cut at data.max_length", counts.num_cut_samples)


def stream_loader(
    config: Config, stream: StreamDataset, args: TrainingArguments, collate: Callable[[list[Item]], Item]
) -> "StreamLoader":
    """Return the batches of a stream.

    It is not prepared by accelerate, which reads a batch ahead: a pipe that holds just enough would end too early.
    """
    return StreamLoader(
        _Feed(stream),
        batch_size=batch_size_of(config),
        collate_fn=partial(_collate_fed, collate),
        pin_memory=args.dataloader_pin_memory,
        **worker_options(config.train),
    )


class _Feed(IterableDataset):
    """Items of a stream with its counts at each, which thus come out of a worker process.

    Args:
        stream: what is read.
    """

    def __init__(self, stream: StreamDataset):
        self.stream = stream

    def __iter__(self) -> Iterator[Fed]:
        for item in self.stream:
            yield item, replace(self.stream.counts)


def _collate_fed(collate: Callable[[list[Item]], Item], fed: list[Fed]) -> Fed:
    return collate([item for item, _ in fed]), fed[-1][1]


class StreamLoader(DataLoader):
    """Batches of a `_Feed`; keeps the counts of the last one."""

    dataset: _Feed

    def __iter__(self) -> Any:
        """Yield batches."""
        for values, counts in super().__iter__():
            self.dataset.stream.trained = counts
            yield values
