"""Does a model know who it is, and did it stay what it was: three held-out numbers before and after, and a verdict."""

from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from mmtune.data.makers.identity import Identity
from mmtune.evaluate.compare import Comparison

SELF, OTHERS = "about itself", "about anything else"
"""Names of the two sets of questions."""
MIN_HITS = 0.75
MAX_LEAKS = 0.05
MIN_KEPT = 0.75
"""Shares of the questions beyond which the verdict is no good one. Few held-out questions allow no finer ones."""


@dataclass(frozen=True)
class Count:
    """So many of so many."""

    number: int
    of: int

    @property
    def share(self) -> float:
        """Between 0 and 1; 0 of none."""
        return self.number / self.of if self.of else 0.0

    def __str__(self) -> str:
        return f"{self.number} of {self.of}"


@dataclass(frozen=True)
class Scores:
    """The held-out numbers of one model.

    Attributes:
        hits: questions about itself that are answered with its name or, where they ask for it, its author.
        leaks: other questions whose answer mentions one of them, see `_leaks`.
        right: other questions that are answered right.
        kept: of those that the first model answers right, those that are right still.
    """

    hits: Count
    leaks: Count
    right: Count
    kept: Count


def identity_scores(comparison: Comparison, identity: Identity) -> list[Scores]:
    """Return the numbers of each model, in the order of the models."""
    return [_scores(comparison, identity, number) for number in range(len(comparison.models))]


def _scores(comparison: Comparison, identity: Identity, model: int) -> Scores:
    pairs = list(zip(comparison.questions, comparison.answers, strict=True))
    about_self = [answers[model].correct for question, answers in pairs if question.set == SELF]
    others = [(question, answers) for question, answers in pairs if question.set == OTHERS]
    right_before = [answers[model].correct for _, answers in others if answers[0].correct]
    leaks = [_leaks(answers[model].text, answers[0].text if model else "", identity) for _, answers in others]
    return Scores(
        Count(sum(map(bool, about_self)), len(about_self)),
        Count(sum(leaks), len(others)),
        Count(sum(bool(answers[model].correct) for _, answers in others), len(others)),
        Count(sum(map(bool, right_before)), len(right_before)),
    )


def _leaks(text: str, before: str, identity: Identity) -> bool:
    """Whether an answer mentions name or author, spelled as they are, where the first model's answer did not.

    So a name that is also a word (`Apple`) counts neither where it is small (`an apple`) nor where any model says it.
    """
    return identity.is_in(text, any_case=False) and not identity.is_in(before)


def verdict(before: Scores, after: Scores) -> str:
    """Return one line: what is wrong and what to change, or that all is well."""
    name = f"the name in {after.hits} unseen questions about itself"
    if after.leaks.share > MAX_LEAKS:
        found = f"the name appears in {after.leaks} questions about anything else"
        return f"over-fitted: {found}; train fewer steps or add replay"
    if after.kept.of and after.kept.share < MIN_KEPT:
        found = f"of {after.kept.of} general answers that were right before, {after.kept.number} still are"
        return f"spoiled: {found}; train fewer steps, lower the rate or add replay"
    if after.hits.share < MIN_HITS:
        return f"under-trained: {name}; train more steps or raise the rate"
    return f"good: {name}, in {after.leaks} others, and {after.kept} general answers kept"


def facts(scores: list[Scores], models: list[str]) -> dict[str, Any]:
    """Return the numbers as plain values, for the report."""
    rows = []
    for name, each in zip(models, scores, strict=True):
        row: dict[str, Any] = {"model": name}
        row |= {key: {"number": count.number, "of": count.of} for key, count in vars(each).items()}
        rows.append(row)
    return {"scores": rows, "verdict": verdict(scores[0], scores[-1])}


def print_scores(before: Scores, after: Scores, console: Console) -> None:
    """Print the three numbers before and after as a table, and the verdict."""
    table = Table(title="Held-out questions", title_justify="left", show_edge=False)
    table.add_column("")
    table.add_column("before", justify="right", no_wrap=True)
    table.add_column("after", justify="right", no_wrap=True)
    table.add_row("says who it is, in unseen words", str(before.hits), str(after.hits))
    table.add_row("leaks: says so where nobody asked", str(before.leaks), str(after.leaks))
    table.add_row("general questions answered right", str(before.right), str(after.right))
    table.add_row("  of those right before, right still", "", str(after.kept), style="dim")
    console.print(table)
    console.print(f"\n{verdict(before, after)}", soft_wrap=True, highlight=False, style="bold", markup=False)
