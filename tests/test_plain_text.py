"""Texts of others as they are shown: in a terminal, and as Markdown."""

import doctest

import pytest

from mmtune import markdown, plain_text
from mmtune.plain_text import printable


@pytest.mark.parametrize("module", [plain_text, markdown])
def test_the_examples_in_the_docstrings(module):
    results = doctest.testmod(module)
    assert results.attempted > 0
    assert results.failed == 0


def test_what_steers_a_terminal_is_shown_as_a_picture():
    assert printable("a\x1b[2Jb\x07\r\x7f\x9b31m\u202e") == "a\u241b[2Jb\u2407\u240d\u2421\ufffd31m\ufffd"
    assert printable("line\n\ttab 你好 👩‍🚀") == "line\n\ttab 你好 👩‍🚀"
