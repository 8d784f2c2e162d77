"""A comparison in the terminal: the first answers, tables of scores, and what else there is to say of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mmtune.evaluate.compare import CONTROLS
from mmtune.evaluate.measures import RIGHT, p_text
from mmtune.evaluate.memorised import FLAG_LABELS, VERBATIM, is_telling
from mmtune.evaluate.metrics import wilson_interval
from mmtune.evaluate.scores import ALL_GROUPS, OWN_CONDITIONS
from mmtune.evaluate.summary import summary_lines
from mmtune.plain_text import printable

WIDE = 1000  # columns: more than any table takes


def print_report(report: dict[str, Any], console: Console) -> None:
    """Print the scores as tables: a row a group, a column a model, the controls beside the last one; then all else.

    Intervals are left out of a table that is too wide for the terminal with them; `report.json` has them.
    """
    models = [model["name"] for model in report["models"]]
    for set_name in dict.fromkeys(row["set"] for row in report["scores"]):
        rows = [row for row in report["scores"] if row["set"] == set_name]
        figures = [row for row in report.get("measures") or [] if row["set"] == set_name and row["measure"] != RIGHT]
        for table, rows_of in ((_score_table, rows), (_measure_table, figures)):
            if rows_of:
                _print_fitting(table, set_name, rows_of, models, console)
    kept = report["retention"]
    if kept:
        console.print(
            f"Of {kept['of']} text questions that {kept['before']} answers right,"
            f" {kept['after']} still answers {kept['kept']} right."
        )
    notes = [*(report.get("missing_measures") or []), *(report.get("training_data_notes") or [])]
    for line in [*summary_lines(report), *(f"not known: {note}" for note in notes)]:
        console.print(printable(line), soft_wrap=True, highlight=False, markup=False)


def _print_fitting(
    table_of: Callable[..., Table], set_name: str, rows: list[dict[str, Any]], models: list[str], console: Console
) -> None:
    table = table_of(set_name, rows, models, has_intervals=True)
    if console.measure(table, options=console.options.update(max_width=WIDE)).maximum > console.width:
        table = table_of(set_name, rows, models, has_intervals=False)
    console.print(table)
    console.print()


def columns_of(rows: list[dict[str, Any]], models: list[str]) -> list[tuple[str, tuple[str, ...]]]:
    """Return the columns of a table of scores: (model, conditions); the controls of the last model stand last."""
    columns = [(model, OWN_CONDITIONS) for model in models] + [(models[-1], (control,)) for control in CONTROLS]
    return [column for column in columns if any(in_column(row, column) for row in rows)]


def sorted_groups(rows: list[dict[str, Any]]) -> list[str]:
    """Return the groups of some scores in their order, all together last; one group alone has the same figures."""
    groups = sorted(dict.fromkeys(row["group"] for row in rows), key=lambda name: name == ALL_GROUPS)
    return groups[1:] if len(groups) == 2 and groups[1] == ALL_GROUPS else groups


def in_column(row: dict[str, Any], column: tuple[str, tuple[str, ...]]) -> bool:
    """Whether a score belongs to a column of `columns_of`."""
    return row["model"] == column[0] and row["condition"] in column[1]


def _score_table(set_name: str, rows: list[dict[str, Any]], models: list[str], *, has_intervals: bool) -> Table:
    title = f"{set_name}: right answers" + (" (95 % interval)" if has_intervals else "")
    table = Table(title=_cell_text(title), title_justify="left", show_edge=False)
    table.add_column("question")
    columns = columns_of(rows, models)
    for model, conditions in columns:
        name = model if conditions == OWN_CONDITIONS else conditions[0]
        table.add_column(_cell_text(name), justify="right", no_wrap=True)
    for group in sorted_groups(rows):
        cells = [[row for row in rows if row["group"] == group and in_column(row, column)] for column in columns]
        texts = [_cell(found, has_intervals) for found in cells]
        table.add_row(_cell_text(group), *texts, style="bold" if group == ALL_GROUPS else "")
    return table


def _measure_table(set_name: str, rows: list[dict[str, Any]], models: list[str], *, has_intervals: bool) -> Table:
    title = f"{set_name}: answers against references" + (" (95 % interval)" if has_intervals else "")
    table = Table(title=_cell_text(title), title_justify="left", show_edge=False)
    table.add_column("measure")
    for model in models:
        table.add_column(_cell_text(model), justify="right", no_wrap=True)
    if len(models) > 1:
        table.add_column("last against first", justify="right", no_wrap=True)
    for measure in dict.fromkeys(row["measure"] for row in rows):
        found = [row for row in rows if row["measure"] == measure]
        figures = [
            f"{row['value']:.2f}" + (f" ({row['low']:.2f}-{row['high']:.2f})" if has_intervals else "") for row in found
        ]
        table.add_row(measure, *figures, *([p_text(found[-1]["p"])] if len(models) > 1 else []))
    return table


def _cell_text(text: str) -> Text:
    """A text of the user's files, in which nothing is markup."""
    return Text(printable(text))


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
        console.print(printable(f"\n{entry['question']}{image}"), markup=False, style="bold", highlight=False)
        for answer in entry["answers"]:
            is_control = answer["condition"] in CONTROLS
            flags = [] if is_control else entry["flags"].get(answer["model"], [])
            marks = [{True: "right", False: "wrong", None: ""}[answer["correct"]]]
            marks += [FLAG_LABELS[VERBATIM]] if is_telling(flags, answer["text"], bool(entry["image"])) else []
            name = f"{answer['model']}, {answer['condition']} image" if is_control else answer["model"]
            text = f"not asked: {answer['problem']}" if answer["problem"] else answer["text"]
            marked = ", ".join(filter(None, marks))
            console.print(printable(f"  {name}: {text}  {marked}").rstrip(), markup=False, highlight=False)
    if len(report["questions"]) > limit:
        console.print(f"\nThese are {limit} of {len(report['questions'])} questions.", highlight=False)
