"""What `compare` leaves behind: a JSON report, the same as Markdown, one HTML page."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmtune.evaluate.compare import BASE, CONTROLS, Comparison
from mmtune.evaluate.measures import measures
from mmtune.evaluate.memorised import memorised
from mmtune.evaluate.page import write_page
from mmtune.evaluate.report_markdown import report_markdown
from mmtune.evaluate.scores import dependence, retention, score
from mmtune.run_folder import MANIFEST_FILE, library_versions, read_json, write_json

REPORT_FILE = "report.json"
PAGE_FILE = "page.html"
MARKDOWN_FILE = "report.md"


def build_report(
    comparison: Comparison,
    names: Sequence[Path | str],
    title: str = "Before and after",
    credits: Sequence[str] = (),
    left_out: Sequence[str] = (),
) -> dict[str, Any]:
    """Return all that the page shows as plain values.

    Args:
        comparison: from `compare_models`.
        names: what was compared, `base` too, as it was given to it.
        title: of the page.
        credits: whose images and models are shown, at its end.
        left_out: questions that could not be read, a line each.
    """
    searched = memorised(comparison, [str(name) for name in names])
    figures, missing = measures(comparison)
    runs = [
        (model["name"], model["label"], Path(name))
        for model, name in zip(comparison.models, names, strict=True)
        if name != BASE
    ]
    return {
        "title": title,
        "created": time.strftime("%Y-%m-%d %H:%M"),
        "versions": library_versions(),
        "models": comparison.models,
        "conditions": [name for name in ("image", *CONTROLS) if name in _conditions(comparison)],
        "scores": score(comparison),
        "measures": figures,
        "missing_measures": missing,
        "retention": retention(comparison),
        "dependence": dependence(comparison),
        "memorised": searched.counts,
        "training_data_notes": searched.notes,
        "left_out": [*left_out, *_unasked(comparison)],
        "times": [*_training_times(runs), {"name": "compare", "seconds": comparison.seconds}],
        "plots": [
            {"title": f"Loss of {label}", "path": str(run / "loss.png")}
            for _, label, run in runs
            if (run / "loss.png").is_file()
        ],
        "questions": _entries(comparison, searched.flags),
        "credits": list(credits),
    }


def _entries(comparison: Comparison, flags: list[dict[str, list[str]]]) -> list[dict[str, Any]]:
    questions = []
    for question, answers, own_flags in zip(comparison.questions, comparison.answers, flags, strict=True):
        entry: dict[str, Any] = {
            "id": question.id,
            "set": question.set,
            "group": question.group,
            "question": question.question,
        }
        entry |= {"image": question.images[0] if question.images else None, "images": list(question.images)}
        entry |= {"reference": list(question.reference), "answers": [vars(answer) for answer in answers]}
        questions.append(entry | {"flags": own_flags})
    return questions


def _conditions(comparison: Comparison) -> set[str]:
    return {answer.condition for answers in comparison.answers for answer in answers}


def _unasked(comparison: Comparison) -> list[str]:
    """A line for each question that a model could not be asked, whatever the image."""
    lines: dict[str, None] = {}
    for question, answers in zip(comparison.questions, comparison.answers, strict=True):
        for answer in answers:
            if answer.problem:
                lines[f"{question.place}: not asked of {answer.model}: {answer.problem}"] = None
    return list(lines)


def _training_times(runs: list[tuple[str, str, Path]]) -> list[dict[str, Any]]:
    manifests = [(name, read_json(run / MANIFEST_FILE)) for name, _, run in runs]
    return [{"name": name, "seconds": facts["train_seconds"]} for name, facts in manifests if "train_seconds" in facts]


def write_report(report: dict[str, Any], folder: Path | str) -> None:
    """Write `report.json`, `report.md` and `page.html`."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / REPORT_FILE, report)
    (folder / MARKDOWN_FILE).write_text(report_markdown(report, folder), encoding="utf-8", errors="replace")
    write_page(report, folder / PAGE_FILE)
