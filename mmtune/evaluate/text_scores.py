"""Figures for a whole answer against its references, between 0 and 1: overlap of words, VQA accuracy, ROUGE-L, BLEU.

ROUGE-L and BLEU are those of Google's rouge-score and of sacrebleu, of the extra `eval`. Whether an answer is right at
all: `metrics.py`. CIDEr is not here: its implementations need Java, or pin libraries that are older than ours.
"""

import importlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

from mmtune.errors import ConfigError
from mmtune.evaluate.metrics import exact, normalize

CHINESE = r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]"
_TOKEN = re.compile(rf"{CHINESE}|(?:(?!{CHINESE})[^\W_])+")
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


def vqa_accuracy(answer: str, references: Sequence[str]) -> float:
    """Return VQA accuracy (Antol et al. 2015): of each 9 of 10 people, three who say the same make an answer right.

    Answers are normalized as for `exact`, not by the list of contractions of the benchmark's own script.

    >>> round(vqa_accuracy("Red.", ["red"] * 2 + ["blue"] * 8), 3), vqa_accuracy("red", ["red"] * 4 + ["blue"] * 6)
    (0.6, 1.0)
    """
    agrees = [exact(answer, [reference]) for reference in references]
    total = sum(agrees)
    return sum(min(1.0, (total - own) / 3) for own in agrees) / len(agrees)


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


@dataclass(frozen=True)
class BleuScore:
    """Corpus BLEU of one model, 0..100, with its 95 % bootstrap interval; `p` against the first model, None for it."""

    value: float
    low: float
    high: float
    p: float | None


def bleu(answers: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> list[BleuScore]:
    """Return sacrebleu's corpus BLEU of each model, with its paired bootstrap test (Koehn 2004) against the first.

    Args:
        answers: of each model, one a question.
        references: of each question; may be of any number.

    Raises:
        ConfigError: sacrebleu is not installed.
    """
    significance = _import("sacrebleu.significance", "sacrebleu")
    is_chinese = any(re.search(CHINESE, text) for texts in references for text in texts)
    metric = _import("sacrebleu.metrics", "sacrebleu").BLEU(tokenize="zh" if is_chinese else "13a")
    most = max(map(len, references))
    columns = [[own[number] if number < len(own) else None for own in references] for number in range(most)]
    systems = [(str(number), list(texts)) for number, texts in enumerate(answers)]
    test = significance.PairedTest(systems, {"BLEU": metric}, columns, test_type="bs", n_samples=1000)
    results = test()[1]["BLEU"]
    return [BleuScore(found.score, *_interval(found.mean, found.ci), found.p_value) for found in results]


def _interval(mean: float, half_width: float) -> tuple[float, float]:
    return max(0.0, float(mean - half_width)), min(100.0, float(mean + half_width))


def _import(module: str, package: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError:
        message = f"needs the package {package}, which is not installed. Run: pip install 'mmtune[eval]'"
        raise ConfigError("compare", message) from None
