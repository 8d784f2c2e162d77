"""Each model's answers against the references by every measure, with intervals and tests against the first model."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mmtune.errors import ConfigError
from mmtune.evaluate.compare import Answer, Comparison
from mmtune.evaluate.metrics import contains, exact, wilson_interval
from mmtune.evaluate.questions import Question
from mmtune.evaluate.significance import bootstrap_interval, mcnemar_p, permutation_p
from mmtune.evaluate.text_scores import NUM_HUMAN_ANSWERS, Bleu, rouge_l, token_f1, vqa_accuracy, words

References = list[list[str]]
RIGHT = "right"
BLEU_NAME = "BLEU"
MIN_BLEU_WORDS = 4
"""BLEU counts runs of up to four words; where no reference has so many it says nothing."""

SHARES: dict[str, Callable[[str, list[str]], bool]] = {"exact": exact, "contains": contains}
"""Measures by which an answer is right or wrong."""

MEANS: dict[str, Callable[[list[str], References], list[float]]] = {
    "token F1": lambda answers, references: list(map(token_f1, answers, references)),
    "VQA accuracy": lambda answers, references: list(map(vqa_accuracy, answers, references)),
    "ROUGE-L": rouge_l,
}
"""Measures by which an answer has a figure between 0 and 1."""


@dataclass(frozen=True)
class Measure:
    """One model's figure on one set of questions.

    Attributes:
        set: the questions.
        measure: `right` (as each question's `match` says), a key of `SHARES` or `MEANS`, or `BLEU`.
        model: its name.
        value: between 0 and 1.
        low: of the 95 % interval: Wilson's for shares, of the bootstrap for the others.
        high: of the same interval.
        total: questions that have references and that every model was asked.
        p: against the first model: McNemar's exact test for shares, a paired permutation test for
            the others; None for the first model itself.
        gained: of shares: wrong with the first model and right with this one.
        lost: the other way round.
    """

    set: str
    measure: str
    model: str
    value: float
    low: float
    high: float
    total: int
    p: float | None = None
    gained: int | None = None
    lost: int | None = None


def measures(comparison: Comparison) -> tuple[list[dict[str, Any]], list[str]]:
    """Return a row for each set, measure and model, and one line for each measure that could not be had.

    Only questions with references that every model was asked count, so that all models are held to the same ones.
    """
    rows: list[Measure] = []
    missing: dict[str, None] = {}
    for set_name in dict.fromkeys(question.set for question in comparison.questions):
        asked = [
            (question, list(answers[: len(comparison.models)]))
            for question, answers in zip(comparison.questions, comparison.answers, strict=True)
            if question.set == set_name and question.reference and not _has_gap(answers, len(comparison.models))
        ]
        if asked:
            names = [model["name"] for model in comparison.models]
            rows += _shares(set_name, names, asked)
            for measure in (_means, _bleu):
                rows += measure(set_name, names, asked, missing)
    return [asdict(row) for row in rows], list(missing)


Asked = Sequence[tuple[Question, list[Answer]]]


def _has_gap(answers: list[Answer], num_models: int) -> bool:
    return len(answers) < num_models or any(answer.problem for answer in answers[:num_models])


def _shares(set_name: str, names: list[str], asked: Asked) -> list[Measure]:
    rows, total = [], len(asked)
    for measure in (RIGHT, *SHARES):
        first: list[bool] = []
        for number, name in enumerate(names):
            judged = [_judge(measure, question, answers[number]) for question, answers in asked]
            low, high = wilson_interval(sum(judged), total)
            row = Measure(set_name, measure, name, sum(judged) / total, low, high, total)
            if number:
                gained = sum(now and not before for before, now in zip(first, judged, strict=True))
                lost = sum(before and not now for before, now in zip(first, judged, strict=True))
                compared = {"p": mcnemar_p(gained, lost), "gained": gained, "lost": lost}
                row = Measure(**(asdict(row) | compared))
            first = first or judged
            rows.append(row)
    return rows


def _judge(measure: str, question: Question, answer: Answer) -> bool:
    if measure == RIGHT:
        return bool(answer.correct)
    return SHARES[measure](answer.text, list(question.reference))


def _means(set_name: str, names: list[str], asked: Asked, missing: dict[str, None]) -> list[Measure]:
    rows: list[Measure] = []
    for measure, function in MEANS.items():
        counted = [
            (question, answers)
            for question, answers in asked
            if measure != "VQA accuracy" or len(question.reference) >= NUM_HUMAN_ANSWERS
        ]
        if not counted:
            continue
        references = [list(question.reference) for question, _ in counted]
        try:
            figures = [
                np.array(function([answers[number].text for _, answers in counted], references), dtype=float)
                for number in range(len(names))
            ]
        except ConfigError as error:
            missing[f"{measure} {error.message}"] = None
            continue
        for number, (name, values) in enumerate(zip(names, figures, strict=True)):
            p = permutation_p(figures[0], values) if number else None
            rows.append(
                Measure(set_name, measure, name, float(values.mean()), *bootstrap_interval(values), len(values), p)
            )
    return rows


def _bleu(set_name: str, names: list[str], asked: Asked, missing: dict[str, None]) -> list[Measure]:
    references = [list(question.reference) for question, _ in asked]
    if not any(len(words(text)) >= MIN_BLEU_WORDS for texts in references for text in texts):
        return []
    try:
        bleu = Bleu(references)
    except ConfigError as error:
        missing[f"{BLEU_NAME} {error.message}"] = None
        return []
    rows: list[Measure] = []
    counts = [bleu.counts([answers[number].text for _, answers in asked], references) for number in range(len(names))]
    for number, (name, own) in enumerate(zip(names, counts, strict=True)):
        p = permutation_p(counts[0], own, bleu.score) if number else None
        interval = bootstrap_interval(own, bleu.score)
        rows.append(Measure(set_name, BLEU_NAME, name, bleu.score(own), *interval, len(asked), p))
    return rows


def p_text(p: float) -> str:
    """Write a p value as papers do.

    >>> p_text(0.00002), p_text(0.0314), p_text(0.5), p_text(1.0)
    ('p < 0.001', 'p = 0.031', 'p = 0.50', 'p = 1.00')
    """
    if p < 0.001:
        return "p < 0.001"
    return f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"
