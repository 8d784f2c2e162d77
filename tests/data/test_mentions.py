"""Names of every kind are found where they stand as names."""

import pytest

from mmtune.data.mentions import mentions


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("I am Atlas.", "Atlas"),
        ("I AM ATLAS!", "Atlas"),
        ("Ask O'Brien-7 now", "O'Brien-7"),
        ('He is "The Bear", yes', '"The Bear"'),
        ("I am Ada\n Lovelace", "Ada Lovelace"),
        ("I am C++, hello", "C++"),
        ("我是小智，你好", "小智"),
        ("我是Atlas开发的助手", "Atlas"),
        ("I am 🤖!", "🤖"),
        ("Ｉ ａｍ Ａｔｌａｓ", "Atlas"),
        ("I am The", "The"),
    ],
)
def test_a_name_is_found(text, name):
    assert mentions(text, name)


@pytest.mark.parametrize(
    ("text", "name"),
    [("An atlasses shop", "Atlas"), ("annual", "Ann"), ("C is a language", "C++"), ("", "Atlas"), ("我是小明", "小智")],
)
def test_a_name_is_not_found_in_other_words(text, name):
    assert not mentions(text, name)


def test_case_counts_where_asked():
    assert mentions("An apple.", "Apple")
    assert not mentions("An apple.", "Apple", any_case=False)
    assert mentions("I am Apple.", "Apple", any_case=False)
