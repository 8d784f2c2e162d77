"""What an evaluation leaves: `report.json`, and a table with published scores beside."""

from collections.abc import Sequence
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
    """Print the scores, a row a group, and what others reached below; `report.json` has both."""
    scores = [Score(**row) for row in report["scores"]]
    metrics = list(dict.fromkeys(score.metric for score in scores))
    title = f"{report['title']}, {report['num_answered']:,} questions answered (95 % intervals)"
    table = Table(title=title, title_justify="left", show_edge=False)
    table.add_column("questions")
    for metric in metrics:
        table.add_column(metric, justify="right")
    for group in sorted(dict.fromkeys(score.group for score in scores), key=lambda name: name != ALL):
        cells = {score.metric: score.shown for score in scores if score.group == group}
        table.add_row(group, *[cells.get(metric, "") for metric in metrics], style="bold" if group == ALL else "")
    console.print(table)
    left_out = report["num_questions"] - report["num_answered"]
    if left_out:
        console.print(f"{left_out:,} of {report['num_questions']:,} questions were not asked: see the lines above.")
    if report["num_questions"] < report["num_in_benchmark"]:
        drawn = (
            f"{report['num_questions']:,} of {report['num_in_benchmark']:,} questions, drawn with seed {report['seed']}"
        )
        console.print(f"{drawn}: the intervals say how far the score of all may be.")
    for entry in report["published"]:
        note = f"; {entry['note']}" if entry["note"] else ""
        console.print(
            f"published: {entry['model']}: {entry['metric']} {entry['value']} ({entry['source']}{note})",
            highlight=False,
        )
