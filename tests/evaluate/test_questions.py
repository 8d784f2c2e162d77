"""What is drawn from questions: an even part of them, and images swapped among them."""

import doctest
from itertools import pairwise

import pytest

from mmtune.evaluate import questions as module
from mmtune.evaluate.questions import Question, shuffled_images, spread


def asked(*images):
    return [Question(str(number), "set", "group", "What?", paths, ()) for number, paths in enumerate(images)]


def test_the_examples_in_the_docstrings():
    results = doctest.testmod(module)
    assert (results.attempted, results.failed) == (1, 0)


@pytest.mark.parametrize(("total", "count"), [(9673, 1000), (7, 3), (5, 5), (5, 1), (3, 9)])
def test_a_spread_is_even_in_order_and_without_repeats(total, count):
    drawn = spread(range(total), count)
    assert len(drawn) == min(total, count)
    assert drawn == sorted(set(drawn))
    gaps = [after - before for before, after in pairwise(drawn)]
    assert not gaps or max(gaps) - min(gaps) <= 1


def test_images_are_swapped_for_others_of_the_same_number():
    questions = asked(("a",), ("b",), ("a",), ("c",), ("d", "e"), ("f", "g"), (), ("h", "i", "j"))
    seen = [set() for _ in questions]
    for seed in range(60):
        for number, images in enumerate(shuffled_images(questions, seed)):
            seen[number].add(images)
    one = [("a",), ("b",), ("c",)]
    assert [len(images) for images in seen[:4]] == [2] * 4
    assert all(images == {*one} - {question.images} for images, question in zip(seen[:4], questions, strict=False))
    assert seen[4:] == [{("f", "g")}, {("d", "e")}, {None}, {None}]
    assert shuffled_images(questions, 3) == shuffled_images(questions, 3)
