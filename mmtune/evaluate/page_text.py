"""How the comparison page writes figures and answers: short, marked where they differ."""

import difflib
import re

NUM_CHARACTERS_FIRST = 170
MIN_SHARED = 0.5
MAX_COMPARED_WORDS = 400
"""Answers that share less of their words, or are longer, are not marked: almost all would be."""


def percent(rate: float) -> str:
    """`0.894` -> `89`; never 100 or 0 unless it is exactly that."""
    return str(min(max(round(100 * rate), 1), 99) if 0 < rate < 1 else round(100 * rate))


def unbroken(line: str) -> str:
    """Keeps `p < 0.001` on one line."""
    return re.sub(r"(p) ([<=]) ", "\\1\u00a0\\2\u00a0", line)


def duration(seconds: float) -> str:
    """`131.2` -> `2 min 11 s`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def opening(text: str) -> tuple[str, str]:
    """Splits a long text into what is shown at once and the rest, which is empty for a short one."""
    if len(text) <= NUM_CHARACTERS_FIRST * 1.25:
        return text, ""
    cut = text.rfind(" ", NUM_CHARACTERS_FIRST // 2, NUM_CHARACTERS_FIRST) + 1 or NUM_CHARACTERS_FIRST
    return text[:cut], text[cut:]


Piece = tuple[str, bool]


def pieces(text: str, before: str = "") -> tuple[list[Piece], list[Piece]]:
    """Splits an answer into what is shown at once and the rest, each as (text, whether `before` lacks it) in turn.

    >>> pieces("a red cat sits", "a cat sits")[0]
    [('a ', False), ('red ', True), ('cat sits', False)]
    """
    shown, _ = opening(text)
    first: list[Piece] = []
    rest: list[Piece] = []
    position = 0
    for part, is_new in _differences(text, before):
        cut = max(0, len(shown) - position)
        position += len(part)
        first += [(part[:cut], is_new)] if part[:cut] else []
        rest += [(part[cut:], is_new)] if part[cut:] else []
    return first, rest


def _differences(text: str, before: str) -> list[Piece]:
    new, old = re.findall(r"\s*\S+\s*", text), re.findall(r"\s*\S+\s*", before)
    if not new or not old or max(len(new), len(old)) > MAX_COMPARED_WORDS:
        return [(text, False)]
    matcher = difflib.SequenceMatcher(None, [word.strip() for word in old], [word.strip() for word in new], False)
    if matcher.ratio() < MIN_SHARED:
        return [(text, False)]
    return [
        ("".join(new[start:end]), kind != "equal") for kind, _, _, start, end in matcher.get_opcodes() if end > start
    ]
