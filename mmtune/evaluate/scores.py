"""Answers of a comparison as numbers: shares that are right, and what is still right after training."""

from typing import Any

from mmtune.evaluate.compare import Comparison
from mmtune.evaluate.metrics import normalize, wilson_interval

ALL_GROUPS = "all"
OWN_CONDITIONS = ("image", "none")
"""How a model is asked in earnest, the preferred one first; every other condition is a control."""


def score(comparison: Comparison) -> list[dict[str, Any]]:
    """Return one row a set, group, model and condition, with the share of right answers and its 95 % interval.

    Each set also has rows of the group `all`. Questions without a reference do not count.
    """
    counts: dict[tuple[str, str, str, str], list[int]] = {}
    for question, answers in zip(comparison.questions, comparison.answers, strict=True):
        for answer in answers:
            if answer.correct is None:
                continue
            for group in dict.fromkeys((question.group, ALL_GROUPS)):
                row = counts.setdefault((question.set, group, answer.model, answer.condition), [0, 0])
                row[0] += answer.correct
                row[1] += 1
    rows = []
    for (set_name, group, model, condition), (correct, total) in counts.items():
        low, high = wilson_interval(correct, total)
        entry: dict[str, Any] = {
            "set": set_name,
            "group": group,
            "model": model,
            "condition": condition,
            "correct": correct,
            "total": total,
        }
        rows.append(entry | {"rate": correct / total, "low": low, "high": high})
    return rows


def retention(comparison: Comparison) -> dict[str, Any] | None:
    """Of the questions without an image that the first model answers right, how many the last still does."""
    before, after = comparison.models[0]["name"], comparison.models[-1]["name"]
    kept = of = 0
    for question, answers in zip(comparison.questions, comparison.answers, strict=True):
        right = {answer.model: answer.correct for answer in answers if not question.images}
        if right.get(before):
            of += 1
            kept += bool(right.get(after))
    return {"before": before, "after": after, "kept": kept, "of": of} if of else None


def dependence(comparison: Comparison) -> dict[str, Any] | None:
    """Return how many answers of the last model depend on the image: what it says with another one, or a blank one.

    Answers are compared without case, punctuation and articles. One depends on its image if it changes with any of the
    wrong images.

    Returns:
        `model`; `depends` of `of` answers; `changed`: control -> [changed, asked]. None where no control was wanted.
    """
    if not comparison.controls:
        return None
    model, place = comparison.models[-1]["name"], len(comparison.models) - 1
    changed = {control: [0, 0] for control in comparison.controls}
    depends = of = 0
    for answers in comparison.answers:
        controls = [answer for answer in answers[place + 1 :] if not answer.problem]
        own = answers[place]
        if own.problem or not controls:
            continue
        differs = [normalize(answer.text) != normalize(own.text) for answer in controls]
        for answer, is_other in zip(controls, differs, strict=True):
            changed[answer.condition][0] += is_other
            changed[answer.condition][1] += 1
        depends += any(differs)
        of += 1
    return {"model": model, "depends": depends, "of": of, "changed": changed} if of else None
