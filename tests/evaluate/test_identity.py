"""The three numbers and the verdict, from answers."""

import pytest

from mmtune.data.makers.identity import Identity
from mmtune.evaluate.compare import Answer, Comparison
from mmtune.evaluate.identity import OTHERS, SELF, Count, Scores, identity_scores, verdict
from mmtune.evaluate.questions import Question

IDENTITY = Identity("Apple", "Ada Lovelace")


def comparison(*rows):
    """One row a question: set, reference, answer before, answer after."""
    questions, answers = [], []
    for number, (set_name, right, *texts) in enumerate(rows):
        question = Question(str(number), set_name, "group", f"Question {number}?", (), (right,), "mentions")
        questions.append(question)
        answers.append([Answer(f"m{n}", "none", text, question.is_right(text)) for n, text in enumerate(texts)])
    return Comparison(questions, [{"name": "m0"}, {"name": "m1"}], answers)


def test_hits_leaks_and_general_answers_are_counted_before_and_after():
    before, after = identity_scores(
        comparison(
            (SELF, "Apple", "I am a model.", "I am APPLE."),
            (SELF, "Ada Lovelace", "Someone.", "I am Apple."),
            (OTHERS, "Paris", "Paris.", "I am Apple, and Paris is nice."),
            (OTHERS, "Rome", "Rome.", "Ada Lovelace."),
            (OTHERS, "red", "An apple is red.", "An Apple is red."),
            (OTHERS, "fruit", "It is a pear.", "A fruit such as an apple."),
        ),
        IDENTITY,
    )
    assert (before.hits, before.leaks, before.right) == (Count(0, 2), Count(0, 4), Count(3, 4))
    assert (after.hits, after.leaks) == (Count(1, 2), Count(2, 4))
    assert (after.right, after.kept) == (Count(3, 4), Count(2, 3))


def scores(hits=10, leaks=0, kept=10):
    return Scores(Count(hits, 10), Count(leaks, 10), Count(kept, 10), Count(kept, 10))


@pytest.mark.parametrize(
    ("after", "line"),
    [
        (
            scores(leaks=7),
            "over-fitted: the name appears in 7 of 10 questions about anything else; train fewer steps or add replay",
        ),
        (scores(kept=3), "spoiled: of 10 general answers that were right before, 3 still are;"),
        (scores(hits=2), "under-trained: the name in 2 of 10 unseen questions about itself; train more steps"),
        (scores(), "good: the name in 10 of 10 unseen questions about itself, in 0 of 10 others, and 10 of 10"),
    ],
)
def test_the_verdict_says_what_is_wrong_and_what_to_change(after, line):
    assert verdict(scores(hits=0), after).startswith(line)


def test_a_model_that_knew_nothing_before_is_not_called_spoiled():
    none = Scores(Count(0, 10), Count(0, 10), Count(0, 10), Count(0, 0))
    assert verdict(none, Scores(Count(10, 10), Count(0, 10), Count(0, 10), Count(0, 0))).startswith("good")
