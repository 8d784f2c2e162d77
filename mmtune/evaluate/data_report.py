"""The tables, figures and files of `mmtune data`: what a check found, what a data set holds."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from mmtune.data.check import DataReport, odd_records
from mmtune.data.dataset import PackedDataset, SampleDataset
from mmtune.data.finding import Finding
from mmtune.data.record import to_line
from mmtune.data.sample_store import SampleStore
from mmtune.errors import ConfigError
from mmtune.schema import Config

NUM_BARS = 16
BAR_WIDTH = 40
SHOWN_KINDS = 12


def warnings_of(stores: Sequence[SampleStore]) -> list[Finding]:
    """Return what is odd about records that can be trained."""
    return [*chain.from_iterable(store.warnings() for store in stores), *odd_records(stores)]


def check_summary(report: DataReport, stores: Sequence[SampleStore], warnings: list[Finding]) -> dict[str, Any]:
    """Return counts of a check, and its findings by kind: `{"kind", "count", "first"}`, the most frequent first."""
    return {
        "num_records": report.num_records,
        "num_good_records": report.num_good_records,
        "num_bad_records": len(report.problems),
        "num_samples": report.num_samples,
        "num_cut_samples": report.num_cut,
        "num_distinct_images": sum(store.num_distinct_images for store in stores),
        "num_warnings": len(warnings),
        "sources": report.sources,
        "errors": _kinds(report.problems),
        "warnings": _kinds(warnings),
    }


def _kinds(findings: list[Finding]) -> list[dict[str, Any]]:
    counts: Counter[str] = Counter()
    first: dict[str, str] = {}
    for finding in findings:
        kind = re.sub(r"'[^']*'|\"[^\"]*\"|\S*[/\\]\S*|\S+\.\w{2,4}\b|\d[\d,.]*", "...", finding.reason)
        counts[kind] += 1
        first.setdefault(kind, f"{finding.place}: {finding.message}")
    return [{"kind": kind, "count": count, "first": first[kind]} for kind, count in counts.most_common()]


def write_check(path: Path, report: DataReport, warnings: list[Finding]) -> int:
    """Write one JSON object a finding: `level`, `file`, `line`, `reason`, `mend`; return how many.

    An old report is deleted where nothing was found.

    Raises:
        ConfigError: the file cannot be written.
    """
    count = 0
    try:
        with path.open("w", encoding="utf-8") as file:
            for level, findings in (("error", report.problems), ("warning", warnings)):
                for finding in findings:
                    file.write(to_line({"level": level, **vars(finding)}) + "\n")
                    count += 1
        if not count:
            path.unlink()
    except OSError as error:
        message = f"{path} cannot be written: {error.strerror}. Name a file in a folder that exists."
        raise ConfigError("--report", message) from None
    return count


def check_table(summary: dict[str, Any]) -> Iterator[Table | str]:
    """Yield what a terminal shows of `check_summary`."""
    sources = Table(box=None, pad_edge=False)
    for column in ("records", "bad", "samples", "in an epoch", "source"):
        sources.add_column(column, justify="left" if column == "source" else "right", overflow="fold")
    for source in summary["sources"]:
        keys = ("num_records", "num_bad_records", "num_samples", "num_samples_in_an_epoch")
        sources.add_row(*(f"{source[key]:,}" for key in keys), source["path"])
    yield sources
    for level, style in (("errors", "red"), ("warnings", "yellow")):
        entries = summary[level]
        for entry in entries[:SHOWN_KINDS]:
            yield f"[{style}]{level[:-1]}[/] {entry['count']:,} x {escape(entry['first'])}"
        if len(entries) > SHOWN_KINDS:
            yield f"and {len(entries) - SHOWN_KINDS} more kinds of {level}"
    if summary["num_cut_samples"]:
        yield f"{summary['num_cut_samples']:,} samples are cut at max_length"
    good = f"{summary['num_good_records']:,} of {summary['num_records']:,} records can be trained"
    yield f"{good}, {summary['num_distinct_images']:,} images"


def data_stats(
    config: Config,
    dataset: SampleDataset,
    rows: SampleDataset | PackedDataset,
    report: DataReport,
    num_batches: int,
    num_steps: int,
) -> dict[str, Any]:
    """Return the figures of a data set and of a run over it."""
    lengths, supervised, images = dataset.lengths, dataset.values("num_supervised"), dataset.num_images
    counts, edges = np.histogram(lengths, NUM_BARS, (0, config.data.max_length))
    return {
        "num_records": report.num_records,
        "num_bad_records": len(report.problems),
        "num_samples": len(dataset),
        "num_cut_samples": report.num_cut,
        "num_samples_with_images": int((images > 0).sum()),
        "num_images": int(images.sum()),
        "num_tokens": int(lengths.sum()),
        "num_supervised_tokens": int(supervised.sum()),
        "max_length": config.data.max_length,
        "lengths": {
            "mean": float(lengths.mean()),
            **{name: int(np.percentile(lengths, p)) for name, p in (("p50", 50), ("p90", 90), ("p99", 99))},
            "longest": int(lengths.max()),
        },
        "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
        "num_rows": len(rows),
        "is_packed": isinstance(rows, PackedDataset),
        "num_batches_per_epoch": num_batches,
        "num_optimizer_steps": num_steps,
    }


def stats_lines(figures: dict[str, Any]) -> Iterator[str]:
    """Yield what a terminal shows of `data_stats`."""
    share = 100 * figures["num_supervised_tokens"] / figures["num_tokens"]
    bad = f" ({figures['num_bad_records']:,} bad, left out)" if figures["num_bad_records"] else ""
    yield f"records           {figures['num_records']:,}{bad}"
    yield f"samples an epoch  {figures['num_samples']:,}, {figures['num_samples_with_images']:,} with images"
    yield f"images            {figures['num_images']:,}"
    yield f"tokens            {figures['num_tokens']:,}"
    yield f"supervised        {figures['num_supervised_tokens']:,} ({share:.1f} %)"
    lengths = figures["lengths"]
    names = {"p50": "half are within", "p90": "90 % within", "p99": "99 % within", "longest": "longest"}
    yield "length            " + ", ".join(
        [f"mean {lengths['mean']:.0f}", *(f"{text} {lengths[key]:,}" for key, text in names.items())]
    )
    if figures["num_cut_samples"]:
        yield f"cut               {figures['num_cut_samples']:,} at max_length {figures['max_length']:,}"
    yield ""
    counts, edges = figures["histogram"]["counts"], figures["histogram"]["edges"]
    for count, end in zip(counts, edges[1:], strict=True):
        bar = "#" * round(BAR_WIDTH * count / max(counts))
        yield f"{'up to ' + format(round(end), ','):>14}  {bar or '.' if count else '':{BAR_WIDTH}}  {count:,}"
    yield ""
    if figures["is_packed"]:
        full = 100 * figures["num_tokens"] / (figures["num_rows"] * figures["max_length"])
        yield f"packs             {figures['num_rows']:,}, {full:.1f} % full"
    yield f"batches an epoch  {figures['num_batches_per_epoch']:,}"
    yield f"optimizer steps   {figures['num_optimizer_steps']:,} on one device"


def plot_lengths(lengths: np.ndarray, max_length: int, path: Path) -> None:
    """Draw the histogram of lengths.

    Raises:
        ConfigError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.6), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.hist(lengths, bins=64, range=(0, max_length), color="#1f4e8c")
    axes.set(xlabel="tokens of a sample, images included", ylabel="samples", xlim=(0, max_length))
    axes.spines[["top", "right"]].set_visible(False)
    try:
        figure.savefig(path, format="png")
    except OSError as error:
        message = f"{path} cannot be written: {error.strerror}. Name a file in a folder that exists."
        raise ConfigError("--png", message) from None
