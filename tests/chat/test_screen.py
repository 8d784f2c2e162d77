"""What a terminal is given: words kept whole, wide characters, nothing that it would obey."""

import pytest
from rich.cells import cell_len

from mmtune.chat.screen import WordWrap


def wrapped(text, width, column=0, size=1):
    shown = []
    wrap = WordWrap(shown.append, width, column)
    for start in range(0, len(text), size):
        wrap.add(text[start : start + size])
    wrap.end()
    return "".join(shown)


@pytest.mark.parametrize("size", [1, 3, 100])
def test_words_are_kept_whole_however_they_come(size):
    text = "The quick brown fox jumps over the lazy dog."
    lines = wrapped(text, 12, 7, size).split("\n")
    assert " ".join(lines) == text
    assert lines[0] == "The"
    assert all(len(line) <= 12 for line in lines)


def test_chinese_breaks_between_characters_and_fills_the_lines():
    text = "这是一只红色的猫,它在睡觉。" * 3
    lines = wrapped(text, 11).split("\n")
    assert "".join(lines) == text
    assert all(9 <= cell_len(line) <= 11 for line in lines[:-1])


def test_lines_of_the_answer_are_kept_and_long_words_are_the_terminals():
    assert wrapped("a\n\n  b c", 10) == "a\n\n  b c"
    assert wrapped("x " + "y" * 25 + " z", 10) == "x " + "y" * 25 + " z"
