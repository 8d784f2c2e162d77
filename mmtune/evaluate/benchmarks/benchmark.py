"""What a benchmark is: its questions, how they are put, what answers are worth, what others reached."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmtune.conversation import ImageSlot
from mmtune.evaluate.metrics import wilson_interval

ALL = "all"
SHORT_ANSWER = "Answer the question using a single word or phrase."
"""LLaVA-1.5's instruction behind a question that wants a few words (arXiv:2310.03744)."""

OPTION_LETTER = "Answer with the option's letter from the given choices directly."
"""LLaVA-1.5's instruction behind options."""

OPTION_LETTER_CN = "请直接回答选项字母。"


@dataclass(frozen=True)
class Item:
    """One question of a benchmark, or one text.

    Attributes:
        id: its name, the only one of its kind.
        question: what is asked, without the instruction; of a text the text.
        place: `file:line`, or the file and the key, for messages.
        images: a path relative to the image folder each, or a slot that holds the image.
        reference: the right answers: the letter of an option, or texts.
        options: of a multiple-choice question, in the order of their letters.
        group: what it is scored apart with.
        unit: what is drawn and counted as one, such as a question with all its rotations.
    """

    id: str
    question: str
    place: str
    images: tuple[str | ImageSlot, ...] = ()
    reference: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    group: str = ALL
    unit: str = ""

    @property
    def drawn_as(self) -> str:
        """The name of its unit; a question without one is its own."""
        return self.unit or self.id


@dataclass(frozen=True)
class Score:
    """One figure.

    Attributes:
        metric: its name.
        group: of which questions; `all` is the whole benchmark.
        value: a share as 0..1, or points.
        total: of how many questions, pairs or tokens.
        low: where the 95 % interval of a share begins; None for what is no share.
        high: where it ends.
    """

    metric: str
    group: str
    value: float
    total: int
    low: float | None = None
    high: float | None = None

    @property
    def shown(self) -> str:
        """The figure as tables show it: a share in percent, anything else as points."""
        return f"{self.value:,.2f}" if self.low is None else f"{self.value:.1%}"

    @property
    def shown_interval(self) -> str:
        """Its interval; empty for what has none."""
        return "" if self.low is None or self.high is None else f"{self.low:.1%} - {self.high:.1%}"


@dataclass(frozen=True)
class Published:
    """A score that others reached.

    Attributes:
        model: which.
        metric: which figure of ours it stands beside.
        value: as printed.
        source: where it was printed.
        note: what differs, such as the split.
    """

    model: str
    metric: str
    value: float
    source: str
    note: str = ""


Read = Callable[[Path], list[Item]]
Credit = Callable[[Item, Any], float]
MakeScores = Callable[[Sequence[Item], Sequence[Any]], list[Score]]


@dataclass(frozen=True)
class Benchmark:
    """A benchmark.

    Attributes:
        title: its name as its authors write it.
        read: from the data folder or file to all questions, in their order.
        credit: what an answer is worth, 0..1.
        score: from questions and their answers to figures, the main one first.
        instruction: what stands on a line of its own behind each question; empty for none.
        image_folder: where its images lie, relative to the data folder; None where the files hold them, or there are
            none.
        paper: where it is described.
        published: what others reached.
    """

    title: str
    read: Read
    credit: Credit
    score: MakeScores
    instruction: str
    image_folder: str | None
    paper: str
    published: tuple[Published, ...] = ()


def share(metric: str, group: str, credits: Sequence[float]) -> Score:
    """Return the mean of credits with its 95 % interval (Wilson).

    For credits between 0 and 1 the interval is wider than need be: those of 0 or 1 vary most.
    """
    low, high = wilson_interval(sum(credits), len(credits))
    return Score(metric, group, sum(credits) / len(credits) if credits else 0.0, len(credits), low, high)


def shares_by_group(metric: str, items: Sequence[Item], credits: Sequence[float]) -> list[Score]:
    """Return the share of all, then that of each group; one group alone is not repeated."""
    groups: dict[str, list[float]] = {}
    for item, credit in zip(items, credits, strict=True):
        groups.setdefault(item.group, []).append(credit)
    rows = [share(metric, group, groups[group]) for group in groups] if len(groups) > 1 else []
    return [share(metric, ALL, credits), *rows]


def lettered(options: Sequence[str]) -> str:
    """Return options a line each, as LLaVA-1.5 writes them.

    >>> print(lettered(["a cat", "a dog"]))
    A. a cat
    B. a dog
    """
    return "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS[: len(options)], options, strict=True))


LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
