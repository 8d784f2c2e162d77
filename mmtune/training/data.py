"""The first step of every training: the data is prepared and checked, and what was found is said and kept."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mmtune.build_data import Reader, build_dataset, packed, require_good
from mmtune.data.check import DataReport
from mmtune.data.dataset import PackedDataset, SampleDataset
from mmtune.data.stream import StreamDataset
from mmtune.progress import Bars
from mmtune.schema import Config
from mmtune.schema_stream import is_streamed
from mmtune.training.held_out import (
    HeldOut,
    log_held_out,
    read_held_out,
    require_measured,
    share_held_out,
    warn_of_shared_images,
)
from mmtune.training.problems import TRAINING_PROBLEMS, list_problems
from mmtune.training.steps import log_steps
from mmtune.training.stream import log_stream, open_stream, stream_facts

log = logging.getLogger(__name__)
SHOWN_PROBLEMS = 10


@dataclass(frozen=True)
class TrainingData:
    """What a run trains on.

    Attributes:
        rows: what the Trainer gets: samples, packs of them, or a stream.
        samples: all of them; None of a stream.
        facts: returns what `data.json` says now.
        held_out: what is measured; None: nothing.
    """

    rows: SampleDataset | PackedDataset | StreamDataset
    samples: SampleDataset | None
    facts: Callable[[], dict[str, Any]]
    held_out: HeldOut | None = None

    def cache_features(self, cache: Callable[[SampleDataset], None]) -> None:
        """Let items hold the features of their images.

        Args:
            cache: computes those of a dataset. Of two sides of one data set it is asked at once.
        """
        assert self.samples is not None, "the config refuses a stream"
        held_out = self.held_out
        if held_out is not None and held_out.is_share:
            order = np.concatenate([self.samples.order, held_out.samples.order])
            both = SampleDataset(self.samples.parts, order, self.samples.transform)
            cache(both)
            self.samples.features = held_out.samples.features = both.features
            return
        cache(self.samples)
        if held_out is not None:
            cache(held_out.samples)

    def log_trained(self) -> None:
        """Say what training has read of a stream; of prepared data that is known before."""
        if isinstance(self.rows, StreamDataset):
            log_stream(self.rows, TRAINING_PROBLEMS)


def load_data(config: Config, reader: Reader, folder: Path, first_step: int) -> TrainingData:
    """Prepare the data of a run, or open its streams, and say what is trained on.

    Args:
        config: of the run.
        reader: of its model.
        folder: of the run.
        first_step: where it continues.

    Raises:
        DataError: a source cannot be read, or records are bad and `data.on_bad_record` is `error`.
        ConfigError: no sample is left, or a source cannot be streamed as the config asks.
    """
    held_out = read_held_out(config, reader, folder) if config.data.validation else None
    if is_streamed(config.data):
        stream = open_stream(config, reader, folder / TRAINING_PROBLEMS, first_step)
        require_measured(config, held_out)
        facts = partial(stream_facts, config, stream, TRAINING_PROBLEMS, first_step)
        return TrainingData(stream, None, partial(_with_held_out, facts, held_out), held_out)
    samples, report = prepare_data(config, reader, folder)
    if config.data.validation_fraction is not None:
        samples, held_out = share_held_out(config, samples)
        log_held_out(held_out)
    require_measured(config, held_out)
    if held_out is not None:
        warn_of_shared_images(samples, held_out)
    rows = packed(config, samples)
    log_data(config, samples, rows, report)
    log_steps(config, rows)
    facts = partial(data_facts, config, samples, report)
    return TrainingData(rows, samples, partial(_with_held_out, facts, held_out), held_out)


def _with_held_out(facts: Callable[[], dict[str, Any]], held_out: HeldOut | None) -> dict[str, Any]:
    """What `data.json` says, with what is measured."""
    return facts() | ({} if held_out is None else {"validation": held_out.facts()})


def prepare_data(config: Config, reader: Reader, folder: Path) -> tuple[SampleDataset, DataReport]:
    """Return the samples of a run; what is wrong with the data is listed in the run's folder.

    Raises:
        DataError: a source cannot be read, or records are bad and `data.on_bad_record` is `error`.
        ConfigError: no sample is left.
    """
    with Bars() as bars:
        dataset, report = build_dataset(config, reader, bars)
    list_problems(folder / TRAINING_PROBLEMS, report)
    require_good(config.data, dataset, report, folder / TRAINING_PROBLEMS)
    return dataset, report


def log_data(config: Config, dataset: SampleDataset, rows: SampleDataset | PackedDataset, report: DataReport) -> None:
    """Say what is trained on."""
    num_supervised = int(dataset.values("num_supervised").sum())
    log.info("%d samples, %d tokens, %d of them supervised", len(dataset), dataset.lengths.sum(), num_supervised)
    if isinstance(rows, PackedDataset):
        share = 100 * rows.lengths.sum() / (len(rows) * config.data.max_length)
        log.info("%d packs of data.max_length=%d, %.1f %% full", len(rows), config.data.max_length, share)
    if report.num_cut:
        log.warning("%d samples were cut at data.max_length=%d", report.num_cut, config.data.max_length)
    for finding in report.problems[:SHOWN_PROBLEMS]:
        log.warning("skipped %s: %s", finding.place, finding.message)
    if len(report.problems) > SHOWN_PROBLEMS:
        log.warning("skipped %d records in all; %s lists them", len(report.problems), TRAINING_PROBLEMS)


def data_facts(config: Config, dataset: SampleDataset, report: DataReport) -> dict[str, Any]:
    """Return what `data.json` says of what is trained."""
    sources = zip(report.sources, dataset.part_sizes(), strict=True)
    return {
        "sources": [source | {"num_samples_in_an_epoch": number} for source, number in sources],
        "resume": "exact",
        "num_records": report.num_records,
        "num_samples": len(dataset),
        "num_cut_samples": int((dataset.values("num_cut") > 0).sum()),
        "num_tokens": int(dataset.lengths.sum()),
        "num_supervised_tokens": int(dataset.values("num_supervised").sum()),
        "skipped": [{"place": finding.place, "reason": finding.message} for finding in report.problems],
    }
