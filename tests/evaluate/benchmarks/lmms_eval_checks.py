"""Our scorers and lmms-eval's own functions on many answers; run by `test_lmms_eval.py` where lmms-eval is."""

import itertools
import random

import pytest
from lmms_eval.tasks._task_utils.vqa_eval_metric import EvalAIAnswerProcessor
from lmms_eval.tasks.mmbench.mmbench_evals import MMBench_Evaluator
from lmms_eval.tasks.mme import utils as their_mme
from lmms_eval.tasks.pope import utils as their_pope
from lmms_eval.tasks.scienceqa import utils as their_scienceqa
from lmms_eval.tasks.textvqa.utils import textvqa_process_results
from lmms_eval.tasks.vqav2.utils import vqav2_process_results

from mmtune.evaluate.benchmarks.benchmark import ALL, LETTERS, Item
from mmtune.evaluate.benchmarks.mmbench import rotations, score_mmbench
from mmtune.evaluate.benchmarks.scienceqa import scienceqa_credit
from mmtune.evaluate.benchmarks.vqa import textvqa_credit, vqav2_credit
from mmtune.evaluate.benchmarks.vqa_words import CONTRACTIONS, NUMBERS, PUNCTUATION, plain_tokens
from mmtune.evaluate.benchmarks.yes_no import COGNITION, PERCEPTION, mme_credit, mme_verdict, score_mme, score_pope

SAID = [
    *("Yes", "no", "Yes.", "No, it is not", "yes, there is a dog", "N", "y", "maybe", "", "It is.", "not", "NO."),
    *("1,000", "two dogs.", "a red/blue car", "dont know", "McDonald's", "3.5 m", "$5", "the  left", "T-shirt", "none"),
    *("yes yes", "what?", "'twas", "who'd've", "left - right", "a, b", "(red)", "U.S.A.", "10:30", "ten", "an apple"),
]


def value_of(scores, metric, group=ALL):
    return next(score.value for score in scores if (score.metric, score.group) == (metric, group))


def test_the_words_of_the_vqa_challenge():
    theirs = EvalAIAnswerProcessor.CONTRACTIONS
    changed = {wrong: right for wrong, right in theirs.items() if wrong != right and wrong == wrong.lower()}
    assert changed == CONTRACTIONS
    assert EvalAIAnswerProcessor.NUMBER_MAP.items() >= NUMBERS.items()
    assert set(EvalAIAnswerProcessor.PUNCTUATIONS) == set(PUNCTUATION)
    rng = random.Random(0)
    words = [*SAID, *theirs, ";", "-", "..", "2", ",", "1.5", "a", "/x", "?"]
    for _ in range(3000):
        text = rng.choice(["", " ", ", "]).join(rng.choices(words, k=rng.randint(1, 4)))
        assert plain_tokens(text) == EvalAIAnswerProcessor()(text), text


def test_textvqa_and_vqav2():
    rng = random.Random(1)
    for _ in range(400):
        people = tuple(rng.choices(SAID[:20], k=10))
        answer = rng.choice([*SAID, people[0]])
        item = Item("1", "", "", reference=people)
        theirs = textvqa_process_results({"answers": list(people), "question_id": 1}, [answer])["exact_match"]
        assert textvqa_credit(item, answer) == pytest.approx(theirs), (people, answer)
        numbered = [{"answer": text, "answer_id": number} for number, text in enumerate(people)]
        theirs = vqav2_process_results({"answers": numbered, "question_id": 1}, [answer])["exact_match"]
        assert vqav2_credit(item, answer) == pytest.approx(theirs), (people, answer)


def test_mme():
    rng = random.Random(2)
    assert [mme_verdict(answer) for answer in SAID] == [their_mme.parse_pred_ans(answer) for answer in SAID]
    items, answers = [], []
    for task, image, (number, label) in itertools.product(
        (*PERCEPTION, *COGNITION), range(5), enumerate(("yes", "no"))
    ):
        unit = f"{task}/{image}"
        items.append(Item(f"{unit}/{number}", "", "", reference=(label,), group=task, unit=unit))
        answers.append(rng.choice([label, label, *SAID[:12]]))
    rows = [
        {"question_id": item.unit, "category": item.group, "score": mme_credit(item, answer)}
        for item, answer in zip(items, answers, strict=True)
    ]
    scores = score_mme(items, answers)
    for name, tasks in (("perception", PERCEPTION), ("cognition", COGNITION)):
        theirs = their_mme.mme_aggregate_results([row for row in rows if row["category"] in tasks])
        assert value_of(scores, name) == pytest.approx(theirs)


def test_pope_where_the_answer_is_one_word():
    """lmms-eval wants the word alone; POPE's authors read sentences too."""
    rng = random.Random(3)
    items = [Item(str(n), "", "", reference=(rng.choice(["yes", "no"]),), group="random") for n in range(200)]
    answers = [rng.choice(["Yes", "yes", "No", "no"]) for _ in items]
    rows = []
    for item, answer in zip(items, answers, strict=True):
        doc = {"answer": item.reference[0], "question_id": item.id}
        rows.append(their_pope.pope_process_results(doc, [answer])["pope_accuracy"])
    scores = score_pope(items, answers)
    assert value_of(scores, "accuracy") == pytest.approx(their_pope.pope_aggregate_accuracy(rows))
    assert value_of(scores, "precision") == pytest.approx(their_pope.pope_aggregate_precision(rows))
    assert value_of(scores, "recall") == pytest.approx(their_pope.pope_aggregate_recall(rows))
    assert value_of(scores, "F1") == pytest.approx(100 * their_pope.pope_aggregate_f1_score(rows))
    ratio = sum(answer.lower() == "yes" for answer in answers) / len(answers)
    assert value_of(scores, "says yes") == pytest.approx(ratio)


@pytest.mark.parametrize("answer", ["A", "B", "C", "B. dog", "A. x", "dog", "", "E"])
def test_scienceqa_where_the_letter_is_large(answer):
    """lmms-eval takes `b` and `B.` too; LLaVA's evaluation does not."""
    for right in range(3):
        doc = {"choices": ["x", "dog", "y"], "answer": right}
        item = Item("1", "", "", reference=(LETTERS[right],), options=("x", "dog", "y"))
        assert scienceqa_credit(item, answer) == their_scienceqa.sqa_process_results(doc, [answer])["exact_match"]


def test_mmbench_by_their_static_evaluation():
    """Letters, letters with their text, and texts: what needs no judge, over all rotations."""
    rng = random.Random(4)
    items, answers, rows = [], [], []
    for number in range(40):
        options = tuple(rng.sample(["cat", "dog", "owl", "fox", "bee"], rng.randint(2, 4)))
        right = rng.randrange(len(options))
        text = "\n".join(["What?", *(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))])
        item = Item(str(number), text, "", (), (LETTERS[right],), options, rng.choice(["x", "y"]), str(number))
        for one in rotations(item):
            chosen = one.options.index(options[right]) if rng.random() < 0.8 else rng.randrange(len(options))
            letter, option = LETTERS[chosen], one.options[chosen]
            answer = rng.choice([letter, f"{letter}.", f"({letter})", f"{letter}. {option}", option.title()])
            cells = dict.fromkeys("ABCD", None) | dict(zip(LETTERS, one.options, strict=False))
            row = {"index": int(one.id), "question": "What?", "answer": one.reference[0], "prediction": answer}
            items.append(one)
            answers.append(answer)
            rows.append(row | cells | {"category": item.group, "l2-category": item.group})
    overall, by_category, _ = MMBench_Evaluator().eval_result(rows, eval_method="static")
    scores = score_mmbench(items, answers)
    assert 0 < overall < 1
    assert value_of(scores, "accuracy") == pytest.approx(overall)
    assert {group: value_of(scores, "accuracy", group) for group in by_category} == pytest.approx(by_category)
