import pytest

from mmtune.conversation import Conversation, Message
from mmtune.data.text_warnings import text_warnings


def warnings_of(question="Hi", answer="Hello.", system=None):
    messages = (Message("system", (system,)),) if system else ()
    return text_warnings(Conversation((*messages, Message("user", (question,)), Message("assistant", (answer,)))))


HTML = "holds HTML ({}). Clean the text unless it is meant."
CONTROL = "spells the control token {}, which is trained as plain text."


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        *((f"a{tag}b", HTML.format(tag)) for tag in ("<br>", "<BR/>", "<br />", "</p>", '<p class="x">', "<h2>")),
        *((f"a{name}b", HTML.format(name)) for name in ("&amp;", "&nbsp;", "&#39;", "&#x27;", "&LT;")),
        *((f"a{token}", CONTROL.format(token)) for token in ("<|im_end|>", "</s>", "<s>", "[/INST]", "<end_of_turn>")),
        ("The mark <image>.", "spells an image mark (<image>), which is text there."),
        ("caf\ufffd", "holds the replacement character U+FFFD: a text that was decoded wrongly."),
    ],
)
def test_suspicious_answers_are_warned_of(answer, words):
    assert warnings_of(answer=answer) == [f"turn 2: the answer {words}"]


@pytest.mark.parametrize(
    "answer",
    [
        "1 < 2 > 0",
        "a & b; c",
        "AT&T",
        "x<y>z",
        "List<String> p",
        "a <b",
        "[INSTALL]",
        "<picture>",
        "|im_end|",
        "a<|b c|>",
    ],
)
def test_ordinary_texts_are_not(answer):
    assert warnings_of(answer=answer) == []


def test_questions_and_system_messages_are_warned_of_marks_and_broken_characters_only():
    assert warnings_of(question="<br> <|im_end|> &amp;", system="<br> </s>") == []
    assert warnings_of(question="a\ufffd", system="An <image> mark") == [
        "turn 1: the system message spells an image mark (<image>), which is text there.",
        "turn 2: the question holds the replacement character U+FFFD: a text that was decoded wrongly.",
    ]


def test_each_kind_is_named_once_a_turn():
    found = warnings_of(answer="<br><br>&amp;</s></s>\ufffd\ufffd")
    assert [line.split(" (")[0][:40] for line in found] == [
        "turn 2: the answer holds HTML",
        "turn 2: the answer spells the control to",
        "turn 2: the answer holds the replacement",
    ]
