"""Is an answer right, and how sure is a share of right answers."""

import math
import re
import string

from mmtune.data.mentions import mentions

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize(text: str) -> str:
    """Lower case, hyphens as spaces, without other punctuation and articles, single spaces.

    >>> normalize("An apple,  on the LEFT."), normalize("a 24-hour clock")
    ('apple on left', '24 hour clock')
    """
    spaced = text.lower().replace("-", " ")
    return " ".join(_ARTICLES.sub(" ", spaced.translate(_PUNCTUATION)).split())


def exact(answer: str, references: list[str]) -> bool:
    """Whether the normalized answer equals one of the references.

    >>> exact("a Dog", ["A dog."]), exact("A dog and a cat.", ["A dog."])
    (True, False)
    """
    return normalize(answer) in {normalize(reference) for reference in references}


def contains(answer: str, references: list[str]) -> bool:
    """Whether one of the references stands in the answer as whole words, normalized.

    >>> contains("It is Paris, of course.", ["Paris"]), contains("12", ["2"])
    (True, False)
    """
    words = f" {normalize(answer)} "
    return any(f" {normalize(reference)} " in words for reference in references)


def ends_with(answer: str, references: list[str]) -> bool:
    """Whether the answer ends with one of the references as whole words, normalized: for answers that reason first.

    >>> ends_with("A red circle, so no.", ["no"]), ends_with("No, a red circle.", ["no"]), ends_with("12", ["2"])
    (True, False, False)
    """
    words = f" {normalize(answer)}"
    return any(words.endswith(f" {normalize(reference)}") for reference in references)


def mentions_one(answer: str, references: list[str]) -> bool:
    """Whether one of the references stands in the answer, no character of it dropped; also in Chinese.

    >>> mentions_one("法国的首都是巴黎。", ["巴黎"]), mentions_one("It is C++.", ["C"]), mentions_one("12", ["2"])
    (True, True, False)
    """
    return any(mentions(answer, reference) for reference in references)


MATCHES = {"exact": exact, "contains": contains, "ends_with": ends_with, "mentions": mentions_one}


def wilson_interval(correct: float, total: int, z: float = 1.96) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927), which stays inside 0..1 also for few answers.

    >>> tuple(round(value, 3) for value in wilson_interval(45, 50))
    (0.786, 0.957)
    """
    if not total:
        return 0.0, 1.0
    share, square = correct / total, z * z
    centre = share + square / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + square / (4 * total * total))
    scale = 1 + square / total
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)
