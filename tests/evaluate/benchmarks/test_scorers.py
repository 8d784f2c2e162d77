"""Scorers on cases that were worked out by hand."""

import doctest
import importlib

import pytest

from mmtune.evaluate.benchmarks.benchmark import ALL, Item, share
from mmtune.evaluate.benchmarks.choices import option_letter, score_choices
from mmtune.evaluate.benchmarks.mmbench import rotations, score_mmbench
from mmtune.evaluate.benchmarks.texts import score_texts
from mmtune.evaluate.benchmarks.vqa import textvqa_credit, vqav2_credit
from mmtune.evaluate.benchmarks.vqa_words import plain_answer, plain_tokens
from mmtune.evaluate.benchmarks.yes_no import score_mme, score_pope


def value_of(scores, metric, group=ALL):
    (found,) = [score for score in scores if (score.metric, score.group) == (metric, group)]
    return found.value


@pytest.mark.parametrize(
    "name", ["asking", "benchmark", "choices", "mmbench", "scienceqa", "texts", "vqa", "vqa_words", "yes_no"]
)
def test_the_examples_in_docstrings(name):
    module = importlib.import_module(f"mmtune.evaluate.benchmarks.{name}")
    assert doctest.testmod(module).failed == 0


def test_pope_counts_by_hand():
    """Random: 2 true yes, 1 false yes, 1 true no. Popular: all said no, 1 of 2 rightly."""
    labels = [("random", "yes"), ("random", "yes"), ("random", "no"), ("random", "no"), *[("popular", "yes")]]
    labels.append(("popular", "no"))
    answers = ["Yes.", "yes", "Yes, there is", "No", "no", "There is not a dog."]
    items = [Item(str(n), "", "", reference=(label,), group=group) for n, (group, label) in enumerate(labels)]
    scores = score_pope(items, answers)
    assert value_of(scores, "precision", "random") == pytest.approx(2 / 3)
    assert value_of(scores, "recall", "random") == 1
    assert value_of(scores, "F1", "random") == pytest.approx(80)
    assert value_of(scores, "says yes", "random") == 0.75
    assert value_of(scores, "accuracy", "popular") == 0.5
    assert value_of(scores, "F1", "popular") == 0
    assert value_of(scores, "mean F1") == pytest.approx(40)
    assert value_of(scores, "accuracy") == pytest.approx(4 / 6)
    assert value_of(scores, "F1") == pytest.approx(100 * 2 * (2 / 3) ** 2 / (4 / 3))


def test_mme_points_by_hand():
    """Colour: one image all right, one half right: accuracy 75 %, accuracy+ 50 %, 125 points."""
    items = [
        Item(f"{task}/{image}/{number}", "", "", reference=(label,), group=task, unit=f"{task}/{image}")
        for task in ("color", "code_reasoning")
        for image in ("a", "b")
        for number, label in enumerate(("yes", "no"))
    ]
    scores = score_mme(items, ["Yes", "No.", "yes it is", "Yes", "n", "I think no", "Y", "no"])
    assert value_of(scores, "points", "color") == pytest.approx(125)
    assert value_of(scores, "perception") == pytest.approx(125)
    assert value_of(scores, "cognition") == pytest.approx(100 * 2 / 4 + 100 * 1 / 2)


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("(C)", "C"),
        ("The answer is A.", "A"),
        ("A. cat", "A"),
        ("a dog", "B"),
        ("It is a dog that runs over the wide green field", "B"),
        ("A or B", None),
        ("cat, dog", None),
        ("A man who is riding a white horse", None),
        ("", None),
        ("D", None),
    ],
)
def test_the_option_that_an_answer_means(answer, letter):
    assert option_letter(answer, ["cat", "dog", "the owl of the barn"]) == letter


def test_a_question_counts_only_where_every_rotation_is_right():
    item = Item("7", "What?\nA. cat\nB. dog\nC. owl", "x.tsv:1", (), ("B",), ("cat", "dog", "owl"), unit="7")
    asked = rotations(item)
    assert [one.reference[0] for one in asked] == ["B", "A", "C"]
    assert asked[1].question == "What?\nA. dog\nB. owl\nC. cat"
    assert [one.id for one in asked] == ["7", "1000007", "2000007"]
    assert all(one.options["ABC".index(one.reference[0])] == "dog" for one in asked)
    always_b = score_mmbench(asked, ["B", "B", "B"])
    assert (value_of(always_b, "accuracy"), value_of(always_b, "first pass")) == (0, 1)
    assert value_of(score_mmbench(asked, ["B", "A", "C"]), "accuracy") == 1


def test_accuracy_by_category():
    items = [Item(str(n), "", "", (), ("A",), ("x", "y"), group=group) for n, group in enumerate(["a", "a", "b"])]
    scores = score_choices(items, ["A", "B", "A"])
    assert [(score.group, score.value) for score in scores] == [(ALL, 2 / 3), ("a", 0.5), ("b", 1.0)]


def test_vqa_accuracy_leaves_each_person_out():
    """Three of ten said red. Leaving out one of them leaves two, 2/3; leaving out another leaves three, 1."""
    people = Item("1", "", "", reference=("Red", "red", "red.", *["blue"] * 7))
    for credit in (textvqa_credit, vqav2_credit):
        assert credit(people, "Red") == pytest.approx((3 * 2 / 3 + 7) / 10)
        assert credit(people, "the red") == pytest.approx(0.9)
        assert credit(people, "green") == 0


@pytest.mark.parametrize(
    ("text", "plain", "tokens"),
    [
        ("Two dogs.", "2 dogs", "2 dogs"),
        ("A man/woman", "man woman", "man woman"),
        ("its 1,000!", "its 1000", "its 1000"),
        ("dont  KNOW", "don't know", "don't know"),
        ("3.5", "3.5", "3.5"),
        ("McDonald's", "mcdonald's", "mcdonald 's"),
        ("red, white", "red white", "red white"),
    ],
)
def test_words_of_the_vqa_challenge(text, plain, tokens):
    assert (plain_answer(text), plain_tokens(text)) == (plain, tokens)


def test_perplexity_and_bits_by_hand():
    """16 nats over 8 tokens: perplexity e^2; over 20 bytes 16 / ln 2 / 20 bits."""
    items = [Item("1", "ten bytes.", "", group="a"), Item("2", "ten bytes!", "", group="b")]
    scores = score_texts(items, [{"loss": 10.0, "tokens": 4}, {"loss": 6.0, "tokens": 4}])
    assert value_of(scores, "perplexity") == pytest.approx(7.389, abs=1e-3)
    assert value_of(scores, "bits a byte") == pytest.approx(1.1542, abs=1e-4)
    assert value_of(scores, "perplexity", "b") == pytest.approx(4.4817, abs=1e-4)


def test_a_share_has_the_interval_of_wilson():
    score = share("accuracy", ALL, [1.0] * 45 + [0.0] * 5)
    assert (round(score.low, 3), round(score.high, 3)) == (0.786, 0.957)
    assert (score.shown, score.shown_interval) == ("90.0%", "78.6% - 95.7%")
