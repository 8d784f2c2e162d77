"""Figures for a whole answer against its references, between 0 and 1: overlap of words, VQA accuracy, ROUGE-L, BLEU.

ROUGE-L and BLEU are those of Google's rouge-score and of sacrebleu, of the extra `eval`. Whether an answer is right at
all: `metrics.py`. CIDEr is not here: its implementations need Java, or pin libraries that are older than ours.
"""

import importlib
import re
from collections import Counter
from collections.abc import Sequence
from types import ModuleType

import numpy as np

from mmtune.errors import ConfigError
from mmtune.evaluate.metrics import normalize

CHINESE = r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]"
_TOKEN = re.compile(rf"{CHINESE}|(?:(?!{CHINESE})[^\W_])+")
NUM_AGREEING = 3
"""An answer counts fully that so many of the other people gave."""
NUM_HUMAN_ANSWERS = 10
"""Answers of people that VQA accuracy needs: those of VQAv2, TextVQA and their kin."""


def words(text: str) -> list[str]:
    """Return the words of a text in lower case; a Chinese character or kana is a word of its own.

    >>> words("A 24-hour clock."), words("一只Cat。")
    (['a', '24', 'hour', 'clock'], ['一', '只', 'cat'])
    """
    return _TOKEN.findall(text.lower())


def token_f1(answer: str, references: Sequence[str]) -> float:
    """Return SQuAD's F1 of the words of an answer, normalized, against the reference that it fits best.

    >>> token_f1("a red apple", ["The apple."]), token_f1("no", ["yes"])
    (0.6666666666666666, 0.0)
    """
    return max(_f1(words(normalize(answer)), words(normalize(reference))) for reference in references)


def _f1(given: list[str], expected: list[str]) -> float:
    if not given or not expected:
        return float(given == expected)
    common = (Counter(given) & Counter(expected)).total()
    return 2 * common / (len(given) + len(expected))


def people_credit(answer: str, given: Sequence[str]) -> float:
    """Return VQA accuracy (Antol et al. 2015) of texts as they are.

    It is the mean over leaving each person out of min(1, equal answers of the others / 3).

    >>> round(people_credit("red", ["red"] * 2 + ["blue"] * 8), 3), people_credit("red", ["red"] * 4 + ["blue"] * 6)
    (0.6, 1.0)
    """
    equal = [text == answer for text in given]
    return sum(min(1.0, (sum(equal) - own) / NUM_AGREEING) for own in equal) / len(equal)


def vqa_accuracy(answer: str, references: Sequence[str]) -> float:
    """Return VQA accuracy of texts that are normalized as for `exact`, not as the benchmark's own script does it.

    >>> round(vqa_accuracy("Red.", ["red"] * 2 + ["blue"] * 8), 3), vqa_accuracy("red", ["red"] * 4 + ["blue"] * 6)
    (0.6, 1.0)
    """
    return people_credit(normalize(answer), [normalize(reference) for reference in references])


class _Words:
    """The tokenizer that rouge-score is given; its own drops every letter but a to z."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


def rouge_l(answers: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """Return ROUGE-L's F-measure of each answer against the reference that it fits best (rouge-score, no stemming).

    Raises:
        ConfigError: rouge-score is not installed.
    """
    scorer = _import("rouge_score.rouge_scorer", "rouge-score").RougeScorer(["rougeL"], tokenizer=_Words())
    return [
        scorer.score_multi(list(expected), answer)["rougeL"].fmeasure
        for answer, expected in zip(answers, references, strict=True)
    ]


class Bleu:
    """sacrebleu's corpus BLEU, from the counts of each answer, so that it can be had of any draw of questions.

    Args:
        references: of all questions; they decide how texts are split into words.

    Raises:
        ConfigError: sacrebleu is not installed.
    """

    def __init__(self, references: Sequence[Sequence[str]]):
        is_chinese = any(re.search(CHINESE, text) for texts in references for text in texts)
        self.metric = _import("sacrebleu.metrics", "sacrebleu").BLEU(tokenize="zh" if is_chinese else "13a")

    def counts(self, answers: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
        """Return int[N, 10]: matched and possible runs of 1 to 4 words, words of the answer and of the reference."""
        rows = []
        for answer, expected in zip(answers, references, strict=True):
            found = self.metric.corpus_score([answer], [[text] for text in expected])
            rows.append([*found.counts, *found.totals, found.sys_len, found.ref_len])
        return np.array(rows)

    def score(self, counts: np.ndarray) -> float:
        """Return the BLEU of some answers together, between 0 and 1."""
        *runs, answer_words, reference_words = counts.sum(0).tolist()
        found = self.metric.compute_bleu(runs[:4], runs[4:], answer_words, reference_words, smooth_method="exp")
        return found.score / 100


def _import(module: str, package: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError:
        message = f"needs the package {package}, which is not installed. Run: pip install 'mmtune[eval]'"
        raise ConfigError("compare", message) from None
