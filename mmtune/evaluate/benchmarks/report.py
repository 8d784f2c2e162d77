"""What an evaluation leaves: `report.json`, and a table with published scores beside."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mmtune.durable import written_beside
from mmtune.evaluate.benchmarks.benchmark import ALL, Benchmark, Score
from mmtune.run_folder import library_versions, write_json

REPORT_FILE = "report.json"


def build_report(
    benchmark: Benchmark, scores: Sequence[Score], inputs: dict[str, Any], *, num_read: int, num_answered: int
) -> dict[str, Any]:
    """Return all that is known of an evaluation as plain values."""
    return {
        "title": benchmark.title,
        "paper": benchmark.paper,
        "inputs": inputs,
        "num_questions": num_read,
        "num_answered": num_answered,
        "scores": [asdict(score) for score in scores],
        "published": [asdict(entry) for entry in benchmark.published],
        "versions": library_versions(),
    }


def write_report(report: dict[str, Any], folder: Path) -> None:
    """Write `report.json`."""
    with written_beside(folder / REPORT_FILE) as beside:
        write_json(beside, report)


def print_report(report: dict[str, Any], console: Console) -> None:
    """Print the scores of all questions with their intervals, those of each group, and what others reached."""
    scores = [Score(**row) for row in report["scores"]]
    console.print(_overall(f"{report['title']} (n = {report['num_answered']:,})", scores))
    groups = list(dict.fromkeys(score.group for score in scores if score.group != ALL))
    if groups:
        console.print()
        console.print(_by_group(groups, scores))
    console.print()
    for line in _remarks(report):
        console.print(line, soft_wrap=True, highlight=False)


def _overall(title: str, scores: Sequence[Score]) -> Table:
    table = Table(title=title, title_justify="left", show_edge=False)
    table.add_column("all")
    for name in ("score", "95 % interval"):
        table.add_column(name, justify="right", no_wrap=True)
    for score in scores:
        if score.group == ALL:
            table.add_row(score.metric, score.shown, score.shown_interval)
    return table


def _by_group(groups: Sequence[str], scores: Sequence[Score]) -> Table:
    """A row a group; `report.json` has their intervals."""
    metrics = list(dict.fromkeys(score.metric for score in scores if score.group != ALL))
    table = Table(show_edge=False)
    table.add_column("by kind")
    for metric in metrics:
        table.add_column(metric, justify="right", no_wrap=True)
    for group in groups:
        cells = {score.metric: score.shown for score in scores if score.group == group}
        table.add_row(group, *[cells.get(metric, "") for metric in metrics])
    return table


def _remarks(report: dict[str, Any]) -> Iterator[str]:
    """What else is to be known: questions that were not asked, that it is a draw, what others reached."""
    left_out = report["num_questions"] - report["num_answered"]
    if left_out:
        yield f"{left_out:,} of {report['num_questions']:,} were not asked: see the lines above."
    if report["num_questions"] < report["num_in_benchmark"]:
        drawn = f"{report['num_questions']:,} of {report['num_in_benchmark']:,}, drawn with seed {report['seed']}"
        yield f"{drawn}: the intervals say where the score of all may lie."
    for entry in report["published"]:
        note = f"; {entry['note']}" if entry["note"] else ""
        yield f"published: {entry['metric']} {entry['value']}, {entry['model']} ({entry['source']}{note})"
