"""What the page says: all of it in both languages, and each text is said somewhere."""

import re
from pathlib import Path

import pytest

import mmtune
from mmtune.serve.run_card import card_rows
from mmtune.serve.run_page import STATES
from mmtune.serve.web_text import LANGUAGES, TEXTS, preferred_language, text

SAME_IN_BOTH = {"top_p", "top_k"}
SOURCES = Path(mmtune.__file__).parent / "serve"


def used():
    """The keys that the code names."""
    code = "".join(path.read_text(encoding="utf-8") for path in SOURCES.glob("*.py") if path.name != "web_text.py")
    keys = set(re.findall(r"[\"'](\w+)[\"']", code)) & TEXTS.keys()
    cards = {
        f"card_{key}"
        for key in re.findall(r'yield "(\w+)"|\("(\w+)", run', (SOURCES / "run_card.py").read_text())
        for key in key
        if key
    }
    return keys | cards | {*STATES.values()} | {key for key in TEXTS if key.endswith("_info") and key[:-5] in keys}


@pytest.mark.parametrize("key", TEXTS)
def test_a_text_is_there_in_both_languages_with_the_same_gaps(key):
    english, chinese = TEXTS[key]
    assert english.isascii()
    assert set(re.findall(r"{\w+}", english)) == set(re.findall(r"{\w+}", chinese))
    if key not in SAME_IN_BOTH:
        assert re.search("[\u4e00-\u9fff]", chinese)
    assert not chinese.endswith(".")
    assert text(key, "zh") == chinese


def test_no_text_is_left_over():
    assert used() == {*TEXTS}


@pytest.mark.parametrize(
    ("header", "language"),
    [("zh-CN,zh;q=0.9,en;q=0.8", "zh"), ("en-GB", "en"), ("de,en;q=0.5,zh-TW;q=0.9", "zh"), ("fr", "en"), ("", "en"),
     ("zh;q=x", "zh"), ("zh;q=0.1,en;q=0.1", "zh"), ("," * 5000, "en")],
)  # fmt: skip
def test_the_language_is_that_of_the_browser(header, language):
    assert preferred_language(header) == language
    assert language in LANGUAGES


def test_every_row_of_the_card_has_a_name():
    assert card_rows.__module__ == "mmtune.serve.run_card"
    rows = set(re.findall(r'yield "(\w+)"', (SOURCES / "run_card.py").read_text(encoding="utf-8"))) | {"verb"}
    assert {f"card_{row}" for row in rows} == {key for key in TEXTS if key.startswith("card_")}
