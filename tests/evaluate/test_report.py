"""The tables of `compare` in terminals of any width."""

import io

import pytest
from rich.console import Console

from mmtune.evaluate.report_tables import print_report

GROUPS = ("what is this", "how many", "all")
CONDITIONS = (("base", "image"), ("pretrain", "image"), ("finetune", "image"), ("finetune", "blank"))


def report():
    scores = [
        {"set": "held-out", "group": group, "model": model, "condition": condition, "correct": 9, "total": 10}
        for group in GROUPS
        for model, condition in CONDITIONS
    ]
    models = [{"name": model, "label": model} for model in ("base", "pretrain", "finetune")]
    return {"scores": scores, "models": models, "retention": None}


@pytest.mark.parametrize(("width", "has_intervals"), [(60, False), (140, True)])
def test_a_narrow_terminal_costs_the_intervals_not_the_questions(width, has_intervals):
    file = io.StringIO()
    print_report(report(), Console(file=file, width=width))
    text = file.getvalue()
    assert all(group in text for group in GROUPS)
    assert all(model in text for model in ("base", "pretrain", "finetune", "blank"))
    assert text.count("90%") == len(GROUPS) * len(CONDITIONS)
    assert ("(60%-98%)" in text) == ("95 % interval" in text) == has_intervals
