"""What `compare` leaves behind: a JSON report, a table in the terminal, one HTML page."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mmtune.evaluate.compare import BASE, CONTROLS, Comparison
from mmtune.evaluate.metrics import wilson_interval
from mmtune.evaluate.page import write_page
from mmtune.evaluate.scores import ALL_GROUPS, retention, score
from mmtune.run_folder import MANIFEST_FILE, library_versions, read_json, write_json

REPORT_FILE = "report.json"
PAGE_FILE = "page.html"
WIDE = 1000  # columns: more than any table takes
OWN_CONDITIONS = ("image", "none")


def build_report(
    comparison: Comparison,
    names: Sequence[Path | str],
    title: str = "Before and after",
    credits: Sequence[str] = (),
) -> dict[str, Any]:
    """Return all that the page shows as plain values.

    Args:
        comparison: from `compare_models`.
        names: the runs that were compared, as they were given to it.
        title: of the page.
        credits: whose images and models are shown, at its end.
    """
    questions = []
    for question, answers in zip(comparison.questions, comparison.answers, strict=True):
        entry: dict[str, Any] = {
            "id": question.id,
            "set": question.set,
            "group": question.group,
            "question": question.question,
        }
        entry |= {"image": question.images[0] if question.images else None, "images": list(question.images)}
        entry |= {"reference": list(question.reference), "answers": [vars(answer) for answer in answers]}
        questions.append(entry)
    conditions = dict.fromkeys(answer.condition for answers in comparison.answers for answer in answers)
    runs = [Path(name) for name in names if name != BASE]
    return {
        "title": title,
        "created": time.strftime("%Y-%m-%d %H:%M"),
        "versions": library_versions(),
        "models": comparison.models,
        "conditions": [name for name in ("image", *CONTROLS) if name in conditions],
        "scores": score(comparison),
        "retention": retention(comparison),
        "times": [*_training_times(runs), {"name": "compare", "seconds": comparison.seconds}],
        "plots": [
            {"title": f"Loss of {run.name}", "path": str(run / "loss.png")}
            for run in runs
            if (run / "loss.png").is_file()
        ],
        "questions": questions,
        "credits": list(credits),
    }


def _training_times(runs: list[Path]) -> list[dict[str, Any]]:
    manifests = [(run.name, read_json(run / MANIFEST_FILE)) for run in runs]
    return [{"name": name, "seconds": facts["train_seconds"]} for name, facts in manifests if "train_seconds" in facts]


def write_report(report: dict[str, Any], folder: Path | str) -> None:
    """Write `report.json` and `page.html`."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / REPORT_FILE, report)
    write_page(report, folder / PAGE_FILE)


def print_report(report: dict[str, Any], console: Console) -> None:
    """Print the scores as tables: a row a group, a column a model, the controls beside the last one.

    Intervals are left out of a table that is too wide for the terminal with them; `report.json` has them.
    """
    models = [model["name"] for model in report["models"]]
    for set_name in dict.fromkeys(row["set"] for row in report["scores"]):
        rows = [row for row in report["scores"] if row["set"] == set_name]
        table = _score_table(set_name, rows, models, has_intervals=True)
        if console.measure(table, options=console.options.update(max_width=WIDE)).maximum > console.width:
            table = _score_table(set_name, rows, models, has_intervals=False)
        console.print(table)
        console.print()
    kept = report["retention"]
    if kept:
        console.print(
            f"Of {kept['of']} text questions that {kept['before']} answers right,"
            f" {kept['after']} still answers {kept['kept']} right."
        )


def _score_table(set_name: str, rows: list[dict[str, Any]], models: list[str], *, has_intervals: bool) -> Table:
    title = f"{set_name}: right answers" + (" (95 % interval)" if has_intervals else "")
    table = Table(title=title, title_justify="left", show_edge=False)
    table.add_column("question")
    columns = [(model, OWN_CONDITIONS) for model in models] + [(models[-1], (control,)) for control in CONTROLS]
    columns = [column for column in columns if any(_in_column(row, column) for row in rows)]
    for model, conditions in columns:
        table.add_column(model if conditions == OWN_CONDITIONS else f"{conditions[0]}", justify="right", no_wrap=True)
    for group in sorted(dict.fromkeys(row["group"] for row in rows), key=lambda name: name == ALL_GROUPS):
        cells = [[row for row in rows if row["group"] == group and _in_column(row, column)] for column in columns]
        texts = [_cell(found, has_intervals) for found in cells]
        table.add_row(group, *texts, style="bold" if group == ALL_GROUPS else "")
    return table


def _in_column(row: dict[str, Any], column: tuple[str, tuple[str, ...]]) -> bool:
    return row["model"] == column[0] and row["condition"] in column[1]


def _cell(rows: list[dict[str, Any]], has_interval: bool) -> str:
    if not rows:
        return ""
    correct, total = sum(row["correct"] for row in rows), sum(row["total"] for row in rows)
    if not has_interval:
        return f"{correct / total:.0%}"
    low, high = wilson_interval(correct, total)
    return f"{correct / total:.0%} ({low:.0%}-{high:.0%})"


def print_answers(report: dict[str, Any], console: Console, limit: int = 8) -> None:
    """Print the first questions with every model's answer."""
    for entry in report["questions"][:limit]:
        image = f"  [{Path(entry['image']).name}]" if entry["image"] else ""
        console.print(f"\n{entry['question']}{image}", markup=False, style="bold", highlight=False)
        for answer in entry["answers"]:
            mark = {True: "right", False: "wrong", None: ""}[answer["correct"]]
            name = (
                answer["model"]
                if answer["condition"] not in CONTROLS
                else f"{answer['model']}, {answer['condition']} image"
            )
            console.print(f"  {name}: {answer['text']}  {mark}", markup=False, highlight=False)
