"""The texts of the identity maker, `en.ini` and `zh.ini`, and what reads them. All were written for mmtune."""

import configparser
import re
from dataclasses import dataclass
from pathlib import Path

LANGUAGES = ("en", "zh")
STYLES = ("plain", "friendly", "formal")
ABOUT_SELF = ("who", "maker", "other")
"""Questions about the name, about the author, and whether it is another model."""
ABOUT_OTHERS = ("near", "general")
"""Near misses, such as `Who wrote Hamlet?`, and general questions."""

_RIGHT = re.compile(r"\*(.+?)\*")


@dataclass(frozen=True)
class Pair:
    """A question that is not about the model, its answer, and the texts of which a right answer holds one."""

    question: str
    answer: str
    right: tuple[str, ...]


class Texts:
    """The texts of one language.

    Args:
        language: one of `LANGUAGES`.
    """

    def __init__(self, language: str):
        # `|` alone divides: questions hold colons and equals signs.
        self._sections = configparser.ConfigParser(allow_no_value=True, delimiters=("|",), interpolation=None)
        self._sections.optionxform = str  # type: ignore[assignment,method-assign]
        self._sections.read_string((Path(__file__).parent / f"{language}.ini").read_text(encoding="utf-8"))

    def questions(self, kind: str) -> list[str]:
        """Return the questions of one of `ABOUT_SELF`."""
        return list(self._sections[kind])

    def answers(self, kind: str, style: str) -> list[str]:
        """Return the answers to questions of one of `ABOUT_SELF`, with `{name}` and `{author}`."""
        return list(self._sections[f"{kind} {style}"])

    def pairs(self, kind: str) -> list[Pair]:
        """Return the pairs of one of `ABOUT_OTHERS`."""
        return [_pair(question, value) for question, value in self._sections[kind].items()]


def _pair(question: str, value: str) -> Pair:
    answer, *others = (text.strip() for text in value.split("|"))
    return Pair(question, _RIGHT.sub(r"\1", answer), (*_RIGHT.findall(answer), *others))
