"""A comparison as Markdown: the same figures and answers as the page, for reading in a repository or a terminal."""

from pathlib import Path
from typing import Any

from mmtune.evaluate.compare import CONTROLS
from mmtune.evaluate.measures import p_text
from mmtune.evaluate.memorised import FLAG_LABELS
from mmtune.evaluate.report_tables import columns_of, in_column, sorted_groups
from mmtune.evaluate.summary import PERMUTATION, TESTS, control_label, summary_lines
from mmtune.markdown import image, inline, table

MARKS = {True: "✓", False: "✗", None: ""}


def report_markdown(report: dict[str, Any], folder: Path) -> str:
    """Return `report.md`; no text of questions, answers or names becomes markup.

    Args:
        report: as `build_report` returns it.
        folder: of the page, from which paths of images are written.
    """
    labels = {model["name"]: model["label"] for model in report["models"]}
    versions = " · ".join(f"{name} {version}" for name, version in report["versions"].items())
    parts = [f"# {inline(report['title'])}", f"{report['created']} · {versions}"]
    parts.append("\n".join(f"- **{inline(model['label'])}**: {inline(model['note'])}" for model in report["models"]))
    if lines := summary_lines(report):
        parts += ["## In short", "\n".join(f"- {inline(line)}" for line in lines)]
    if report["scores"]:
        parts.append("## Right answers\n\nWith the 95 % interval (Wilson).")
        for name in dict.fromkeys(row["set"] for row in report["scores"]):
            of_set = [row for row in report["scores"] if row["set"] == name]
            parts += [f"### {inline(name)}", score_table(of_set, labels)]
    if report["measures"]:
        parts += ["## Measures", _measure_table(report, labels)]
    for title, key in (("What is not known", "training_data_notes"), ("Left out", "left_out")):
        lines = [*report[key], *(report["missing_measures"] if key == "training_data_notes" else [])]
        if lines:
            parts += [f"## {title}", "\n".join(f"- {inline(line)}" for line in lines)]
    parts.append("## Questions and answers")
    parts += [_question(number, entry, labels, folder) for number, entry in enumerate(report["questions"], start=1)]
    parts += [inline(line) for line in report["credits"]]
    return "\n\n".join(parts) + "\n"


def score_table(rows: list[dict[str, Any]], labels: dict[str, str]) -> str:
    """Return the scores of a set as a table: a row a group, a column a model, those with wrong images behind the last.

    Args:
        rows: of a report's `scores`, of one set.
        labels: name of a model -> what to call it.
    """
    columns = columns_of(rows, list(labels))
    head = [labels[model] if kinds[0] not in CONTROLS else control_label(kinds[0], 0) for model, kinds in columns]
    lines = []
    for group in sorted_groups(rows):
        found = [[row for row in rows if row["group"] == group and in_column(row, column)] for column in columns]
        cells = [
            f"{each[0]['rate']:.0%} ({each[0]['low']:.0%}-{each[0]['high']:.0%})" if each else "" for each in found
        ]
        lines.append([group, *cells])
    return table(["question", *head], lines, right=range(1, len(head) + 1))


def _measure_table(report: dict[str, Any], labels: dict[str, str]) -> str:
    first, *_, last = labels if len(labels) > 1 else [*labels, ""]
    lines = []
    for name, measure in dict.fromkeys((row["set"], row["measure"]) for row in report["measures"]):
        found = {row["model"]: row for row in report["measures"] if (row["set"], row["measure"]) == (name, measure)}
        cells = [f"{row['value']:.3f} ({row['low']:.3f}-{row['high']:.3f})" for row in found.values()]
        test = (
            f"{p_text(found[last]['p'])}, {TESTS.get(measure, PERMUTATION)}" if last in found and last != first else ""
        )
        lines.append([f"{name}: {measure}", *cells, test])
    titles = ["set and measure", *labels.values(), "last against first"]
    return table(titles, lines, right=range(1, len(titles)))


def _question(number: int, entry: dict[str, Any], labels: dict[str, str], folder: Path) -> str:
    parts = [f"### {number}. {inline(entry['question'])}", *(image(path, folder) for path in entry["images"])]
    if entry["reference"]:
        parts.append(f"Expected: {inline(' / '.join(entry['reference']))}")
    rows = []
    for answer in entry["answers"]:
        is_control = answer["condition"] in CONTROLS
        name = labels[answer["model"]] + (f", {control_label(answer['condition'], 1)}" if is_control else "")
        flags = [] if is_control else [FLAG_LABELS[flag] for flag in entry["flags"].get(answer["model"], ())]
        text = f"not asked: {answer['problem']}" if answer["problem"] else answer["text"]
        rows.append([name, MARKS[answer["correct"]], text, "; ".join(flags)])
    return "\n\n".join([*parts, table(["model", "", "answer", ""], rows)])
