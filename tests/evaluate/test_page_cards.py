"""The question cards: what changed, which one is the example, what is filtered, how pictures are embedded."""

import base64
import io

import pytest
from PIL import Image

from mmtune.evaluate.page_cards import (
    card_filters,
    data_uri,
    make_card,
    name_change,
    pick_example,
)
from mmtune.evaluate.page_text import duration, opening, percent

MODELS = [{"name": name, "label": name.title()} for name in ("before", "middle", "after")]


def card(*answers, **question):
    """A card whose answers are (model, condition, text, correct)."""
    names = ("model", "condition", "text", "correct")
    given = [dict(zip(names, answer, strict=True)) for answer in answers]
    return make_card({"image": "a.png", **question, "answers": given}, MODELS, lambda path: f"data:{path}")


def changed(middle, after, is_middle_right=False, **question):
    return card(
        ("before", "none", "?", False),
        ("middle", "image", middle, is_middle_right),
        ("after", "image", after, True),
        **question,
    )


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        (False, True, "gained"),
        (True, False, "lost"),
        (True, True, "right"),
        (False, False, "wrong"),
        (None, None, "differs"),
        (None, True, "differs"),
    ],
)
def test_change_is_between_first_and_last(before, after, change):
    first, last = {"text": "a", "correct": before}, {"text": "b", "correct": after}
    assert name_change([first, None, last]) == change
    assert name_change([first, None, None]) == "same"
    assert name_change([]) == "same"


def test_same_words_without_reference_are_no_change():
    answer = {"text": "a", "correct": None}
    assert name_change([answer, answer]) == "same"


def test_asked_with_image_goes_before_asked_without():
    both = card(("after", "none", "blind", False), ("after", "image", "seeing", True))
    assert both.last_answer["text"] == "seeing"
    assert both.controls == [("After, with none", both.question["answers"][0])]


def test_example_is_telling():
    known = changed("a cat on blue", "a cat", set="held-out scenes")
    longer = changed("a cat on blue", "a cat and a dog", is_middle_right=True)
    endless = changed("a cat on blue", "a cat " * 50)
    unseen = changed("a fish", "a lobster, of all things", set="never trained on")
    assert pick_example([unseen, longer, endless, known]) is known
    assert pick_example([unseen]) is None
    assert pick_example([changed("a cat", "a dog", image=None)]) is None


def test_filters_offer_only_a_choice():
    cards = [changed("x", "y", set="s", group=group) for group in ("one", "two", "two")]
    assert card_filters(cards) == [
        ("group", "Question", {"one": ("one", 1), "two": ("two", 2)}),
        (
            "change",
            "Answers",
            {"gained": ("wrong before, right after", 3), "lost": ("right before, wrong after", 0)},
        ),
    ]
    assert card_filters([]) == []


@pytest.mark.parametrize(
    ("mode", "size", "shown"),
    [
        ("RGB", (900, 600), (256, 171)),
        ("RGBA", (128, 128), (128, 128)),
        ("P", (20, 4000), (3, 512)),
        ("L", (256, 1), (256, 1)),
    ],
)
def test_pictures_are_made_small(tmp_path, mode, size, shown):
    Image.new(mode, size).save(tmp_path / "picture.png")
    data = data_uri(tmp_path / "picture.png", 256).removeprefix("data:image/webp;base64,")
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert image.size == shown


def test_what_is_no_picture_has_no_uri(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    names = ("broken.png", "missing.png", ".", "nul\0.png", "x" * 5000)
    assert [data_uri(tmp_path / name, 256) for name in names] == [None] * 5


def test_figures_in_words():
    assert [percent(rate) for rate in (0, 0.002, 0.894, 0.997, 1)] == ["0", "1", "89", "99", "100"]
    times = [duration(seconds) for seconds in (0.52, 59.7, 131.2, 3720)]
    assert times == ["0.5 s", "1 min 0 s", "2 min 11 s", "1 h 2 min"]


def test_opening_loses_nothing():
    for text in ("short", "word " * 100, "x" * 1000, ""):
        assert "".join(opening(text)) == text
    assert opening("word " * 100)[0].endswith("word ")
    assert len(opening("x" * 1000)[0]) < 250
