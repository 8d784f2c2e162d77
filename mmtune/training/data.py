"""The first step of every training: the data is prepared and checked, and what was found is said and kept."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mmtune.build_data import Reader, build_dataset, packed, require_good
from mmtune.data.check import DataReport
from mmtune.data.dataset import PackedDataset, SampleDataset
from mmtune.data.finding import Finding
from mmtune.data.record import to_line
from mmtune.data.stream import StreamDataset
from mmtune.progress import Bars
from mmtune.schema import Config
from mmtune.schema_stream import is_streamed
from mmtune.training.steps import log_steps
from mmtune.training.stream import log_stream, open_stream, stream_facts

log = logging.getLogger(__name__)
PROBLEMS_FILE = "data_problems.jsonl"
SHOWN_PROBLEMS = 10


@dataclass(frozen=True)
class TrainingData:
    """What a run trains on.

    Attributes:
        rows: what the Trainer gets: samples, packs of them, or a stream.
        samples: all of them; None of a stream.
        facts: returns what `data.json` says now.
    """

    rows: SampleDataset | PackedDataset | StreamDataset
    samples: SampleDataset | None
    facts: Callable[[], dict[str, Any]]

    def log_trained(self) -> None:
        """Say what training has read of a stream; of prepared data that is known before."""
        if isinstance(self.rows, StreamDataset):
            log_stream(self.rows, PROBLEMS_FILE)


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
    if is_streamed(config.data):
        stream = open_stream(config, reader, folder / PROBLEMS_FILE, first_step)
        return TrainingData(stream, None, partial(stream_facts, config, stream, PROBLEMS_FILE, first_step))
    samples, report = prepare_data(config, reader, folder)
    rows = packed(config, samples)
    log_data(config, samples, rows, report)
    log_steps(config, rows)
    return TrainingData(rows, samples, partial(data_facts, config, samples, report))


def prepare_data(config: Config, reader: Reader, folder: Path) -> tuple[SampleDataset, DataReport]:
    """Return the samples of a run; what is wrong with the data is listed in the run's folder.

    Raises:
        DataError: a source cannot be read, or records are bad and `data.on_bad_record` is `error`.
        ConfigError: no sample is left.
    """
    with Bars() as bars:
        dataset, report = build_dataset(config, reader, bars)
    (folder / PROBLEMS_FILE).unlink(missing_ok=True)
    if report.problems:
        write_findings(folder / PROBLEMS_FILE, report.problems)
    require_good(config.data, dataset, report, folder / PROBLEMS_FILE)
    return dataset, report


def write_findings(path: Path, findings: list[Finding]) -> None:
    """Write one JSON object a line: `file`, `line`, `reason`, `mend`."""
    path.write_text("".join(to_line(vars(finding)) + "\n" for finding in findings), encoding="utf-8")


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
        log.warning("skipped %d records in all; %s lists them", len(report.problems), PROBLEMS_FILE)


def data_facts(config: Config, dataset: SampleDataset, report: DataReport) -> dict[str, Any]:
    """Return what `data.json` says."""
    return {
        "sources": report.sources,
        "resume": "exact",
        "num_records": report.num_records,
        "num_samples": report.num_samples,
        "num_cut_samples": report.num_cut,
        "num_tokens": int(dataset.lengths.sum()),
        "num_supervised_tokens": int(dataset.values("num_supervised").sum()),
        "skipped": [{"place": finding.place, "reason": finding.message} for finding in report.problems],
    }
