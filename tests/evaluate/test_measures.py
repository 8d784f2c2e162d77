"""Figures and tests of answers, against other libraries and cases worked by hand."""

import doctest

import numpy as np
import pytest

from mmtune.evaluate import compare, measures, memorised, page_text, significance, summary, text_scores, traces
from mmtune.evaluate.compare import Answer, Comparison
from mmtune.evaluate.page_text import pieces
from mmtune.evaluate.questions import Question
from mmtune.evaluate.scores import dependence
from mmtune.evaluate.significance import bootstrap_interval, mcnemar_p, permutation_p
from mmtune.evaluate.text_scores import Bleu, rouge_l, token_f1


@pytest.mark.parametrize("module", [compare, measures, memorised, page_text, significance, text_scores, traces])
def test_the_examples_in_the_docstrings(module):
    results = doctest.testmod(module)
    assert results.attempted > 0
    assert results.failed == 0


def test_mcnemar_is_the_exact_test_of_scipy():
    stats = pytest.importorskip("scipy.stats")
    for gained, lost in ((0, 7), (12, 3), (5, 5), (1, 0), (40, 22)):
        assert mcnemar_p(gained, lost) == pytest.approx(stats.binomtest(gained, gained + lost).pvalue)


@pytest.mark.parametrize("size", [9, 60])
def test_the_permutation_test_is_that_of_scipy(size):
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(1)
    before = rng.random(size)
    after = before + rng.normal(0.05, 0.2, size)
    expected = stats.permutation_test(
        (before, after),
        lambda one, two, axis: np.mean(two - one, axis=axis),
        permutation_type="samples",
        n_resamples=10_000,
        vectorized=True,
        rng=2,
    ).pvalue
    assert permutation_p(before, after) == pytest.approx(expected, abs=1e-9 if size == 9 else 0.02)


def test_the_bootstrap_interval_of_many_questions_is_that_of_the_normal_distribution():
    values = np.random.default_rng(0).random(400)
    low, high = bootstrap_interval(values)
    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.004)


def test_rouge_and_bleu_are_those_of_their_libraries_on_english_text():
    scorer = pytest.importorskip("rouge_score.rouge_scorer", reason="needs the extra eval")
    sacrebleu = pytest.importorskip("sacrebleu", reason="needs the extra eval")
    answers = ["A man reads a big book.", "the cat's on the mat today", "no"]
    references = [["The man reads a book.", "He reads."], ["A cat is on the mat."], ["no", "not at all"]]
    theirs = scorer.RougeScorer(["rougeL"])
    expected = [theirs.score_multi(own, text)["rougeL"].fmeasure for text, own in zip(answers, references, strict=True)]
    assert rouge_l(answers, references) == expected
    bleu = Bleu(references)
    columns = [[own[0] for own in references], [own[1] if len(own) > 1 else None for own in references]]
    expected = sacrebleu.corpus_bleu(answers, columns).score / 100
    assert bleu.score(bleu.counts(answers, references)) == pytest.approx(expected)


def test_chinese_is_measured_by_characters():
    pytest.importorskip("rouge_score", reason="needs the extra eval")
    assert token_f1("一只黑猫。", ["一只猫。"]) == rouge_l(["一只黑猫。"], [["一只猫。"]])[0] == pytest.approx(6 / 7)


def comparison(*answers, controls=("blank", "shuffled")):
    """A comparison of one model; each answer is (own, blank, shuffled), None where it was not asked."""
    kinds = ("image", "blank", "shuffled")
    found = [
        [Answer("run", kind, text, None) for kind, text in zip(kinds, texts, strict=True) if text is not None]
        for texts in answers
    ]
    questions = [Question("1", "set", "group", "What?", ("a.png",), ()) for _ in answers]
    return Comparison(questions, [{"name": "run", "label": "Run", "note": ""}], found, controls=controls)


def test_an_answer_depends_on_its_image_if_any_wrong_image_changes_it():
    found = dependence(
        comparison(
            ("a cat", "A cat.", "the cat"),
            ("a cat", "a dog", "a cat"),
            ("x", "x", "y"),
            ("x", "y", None),
            ("x", None, None),
        )
    )
    assert found == {"model": "run", "depends": 3, "of": 4, "changed": {"blank": [2, 4], "shuffled": [1, 3]}}
    assert "3 of 4 answers of Run depend on the image" in summary.dependence_line(found, {"run": "Run"})
    assert dependence(comparison(("x", None, None))) is None


def test_differences_are_marked_where_answers_are_alike_and_nothing_is_lost():
    assert pieces("a red cat sits", "a cat sits")[0] == [("a ", False), ("red ", True), ("cat sits", False)]
    assert pieces("all is new here", "nothing like it")[0] == [("all is new here", False)]
    assert pieces("", "x")[0] == [("", False)] or pieces("", "x")[0] == []
    long = " ".join(f"word{number}" for number in range(80))
    shown, rest = pieces(long, long.replace("word70", "other"))
    assert "".join(text for text, _ in shown + rest) == long
    assert [text for text, is_new in rest if is_new] == ["word70 "]
