"""An answer ends at a stop text, however its pieces are cut."""

import random

import pytest

from mmtune.serve.stop_texts import StopFound, StopScanner


def scanned(pieces, stops):
    told = []
    scanner = StopScanner(stops, told.append)
    try:
        for piece in pieces:
            scanner.add(piece)
    except StopFound:
        return "".join(told), True
    scanner.end()
    return "".join(told), False


@pytest.mark.parametrize(
    ("pieces", "stops", "expected"),
    [
        (("It is ", "red."), (), ("It is red.", False)),
        (("It is ", "red."), ("blue",), ("It is red.", False)),
        (("It is ", "red."), ("is r",), ("It ", True)),
        (("a", "\n", "\n", "b"), ("\n\n",), ("a", True)),
        (("STO", "X STOP"), ("STOP",), ("STOX ", True)),
        (("aab",), ("ab",), ("a", True)),
        (("ab STO",), ("STOP",), ("ab STO", False)),
        (("STOP",), ("STOP",), ("", True)),
        (("二三", "四"), ("三四",), ("二", True)),
    ],
)
def test_a_stop_text_ends_the_answer(pieces, stops, expected):
    assert scanned(pieces, stops) == expected


def test_how_the_pieces_are_cut_does_not_matter():
    rng = random.Random(0)
    ended = 0
    for _ in range(2000):
        text = "".join(rng.choices("abc", k=rng.randint(0, 12)))
        stops = ["".join(rng.choices("abc", k=rng.randint(1, 4))) for _ in range(rng.randint(1, 3))]
        whole = scanned([text], stops)
        cuts = sorted(rng.choices(range(len(text) + 1), k=rng.randint(0, 5)))
        pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        assert scanned(pieces, stops) == scanned(text, stops) == whole
        ended += whole[1]
        assert not any(stop in whole[0] for stop in stops)
    assert ended > 500


def test_only_what_may_become_a_stop_text_is_held_back():
    told = []
    scanner = StopScanner(["\nuser:"], told.append)
    for piece in ("It", " is", " red", "\nus", "ed"):
        scanner.add(piece)
    assert told == ["It", " is", " red", "\nused"]
