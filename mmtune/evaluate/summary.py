"""What a comparison says besides its tables, as lines of text: for the terminal, Markdown and the page alike."""

from typing import Any

from mmtune.evaluate.measures import RIGHT, p_text
from mmtune.evaluate.memorised import memorised_lines

CONTROL_LABELS = {
    "blank": ("blank", "a blank picture"),
    "shuffled": ("swapped", "the picture of another question"),
}
"""Known controls, in a word and in a phrase; others go by their own name."""

TESTS = {
    "exact": "McNemar's exact test",
    "contains": "McNemar's exact test",
    RIGHT: "McNemar's exact test",
}
PERMUTATION = "paired permutation test"


def control_label(condition: str, form: int) -> str:
    """The name of a control condition, in a word (form 0) or in a phrase (form 1)."""
    return CONTROL_LABELS.get(condition, (condition, condition))[form]


def summary_lines(report: dict[str, Any]) -> list[str]:
    """Return all lines, the ones that matter most first."""
    labels = {model["name"]: model["label"] for model in report.get("models") or []}
    lines = [f"{name}: {line}" for name, line in change_lines(report, labels).items()]
    if report.get("dependence"):
        lines.append(dependence_line(report["dependence"], labels))
    return [*lines, *memorised_lines(report.get("memorised") or [], labels)]


def change_lines(report: dict[str, Any], labels: dict[str, str]) -> dict[str, str]:
    """Return what the last model gained and lost against the first on each set of questions, with the test of it."""
    models = report.get("models") or []
    lines = {}
    for row in report.get("measures") or []:
        if row["measure"] == RIGHT and row["p"] is not None and row["model"] == models[-1]["name"]:
            before, after = labels.get(models[0]["name"]), labels.get(row["model"])
            lines[row["set"]] = (
                f"{after} gains {row['gained']} and loses {row['lost']} of {row['total']} against"
                f" {before} ({p_text(row['p'])}, {TESTS[RIGHT]})"
            )
    return lines


def dependence_line(dependence: dict[str, Any], labels: dict[str, str]) -> str:
    """Return how many answers depend on the image, and by which wrong image that was seen."""
    model = labels.get(dependence["model"], dependence["model"])
    changed = {control: counts for control, counts in dependence["changed"].items() if counts[1]}
    said = " and ".join(f"{some} of {all_} with {control_label(name, 1)}" for name, (some, all_) in changed.items())
    line = f"does it look? {dependence['depends']} of {dependence['of']} answers of {model} depend on the image"
    line += f" (changed: {said})"
    left_out = [control_label(name, 1) for name in dependence["changed"] if name not in changed]
    return line + (f"; there was no other picture to ask with {' or '.join(left_out)}" if left_out else "")
