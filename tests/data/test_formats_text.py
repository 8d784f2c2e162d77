import pytest
from parsing import error_of, parse

from mmtune.conversation import Document, ImageSlot

SLOT = ImageSlot("a.jpg")


def contents(value, format_name=None):
    return [(message.role, message.content) for message in parse(value, format_name).messages]


def test_alpaca():
    value = {"instruction": "Add.", "input": "1 + 2", "output": "3", "text": "Below is an instruction. 3"}
    assert contents(value) == [("user", ("Add.\n1 + 2",)), ("assistant", ("3",))]
    assert (
        contents(value | {"input": ""})
        == contents(value | {"input": None})
        == [("user", ("Add.",)), ("assistant", ("3",))]
    )
    full = value | {"system": "Be brief.", "history": [["Hi", "Hello."], ("Well?", "Yes.")]}
    roles = ["system", "user", "assistant", "user", "assistant", "user", "assistant"]
    texts = ["Be brief.", "Hi", "Hello.", "Well?", "Yes.", "Add.\n1 + 2", "3"]
    assert contents(full) == [(role, (text,)) for role, text in zip(roles, texts, strict=True)]


def test_images_of_alpaca_stand_at_their_marks_or_first():
    value = {"instruction": "What is <image>?", "input": "", "output": "A cat.", "images": ["a.jpg"]}
    assert contents(value)[0] == ("user", ("What is ", SLOT, "?"))
    unmarked = value | {"instruction": "What?", "history": [["Hi", "Hello."]]}
    assert contents(unmarked)[::2] == [("user", (SLOT, "\nHi")), ("user", ("What?",))]
    assert "1 image but 2 '<image>' marks" in error_of(value | {"input": "<image>"})
    assert "0 images but 1 '<image>' mark" in error_of(value | {"images": None})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"output": None}, "'output' is missing or empty"),
        ({"output": 3}, "'output' must be a text (got a number)"),
        ({"output": "<nooutput>"}, "'output' is <nooutput>, which says that there is no answer. Drop the record."),
        ({"output": " "}, "the answer is empty"),
        ({"instruction": ""}, "the question is empty"),
        ({"instruction": ["x"]}, "'instruction' must be a text (got a list)"),
        ({"history": "Hi"}, "'history' must be a list of question and answer (got a text)"),
        ({"history": [["Hi"]]}, "'history' must be a list of question and answer. Write [[question, answer], ...]."),
        ({"history": [["Hi", None]]}, "'history' must be a list of question and answer"),
        ({"history": [["Hi", ""]]}, "turn 2: the answer is empty"),
        ({"system": 1}, "'system' must be a text (got a number)"),
    ],
)
def test_malformed_alpaca_says_what_is_wrong(change, words):
    assert words in error_of({"instruction": "Add.", "output": "3"} | change)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("question", "answer"),
        ("input", "output"),
        ("prompt", "response"),
        ("prompt", "completion"),
        ("query", "response"),
    ],
)
def test_pairs(question, answer):
    value = {question: "What?", answer: "A cat."}
    assert contents(value) == [("user", ("What?",)), ("assistant", ("A cat.",))]
    full = contents(value | {"system": "Be kind.", "image": "a.jpg"})
    assert full == [("system", ("Be kind.",)), ("user", (SLOT, "\nWhat?")), ("assistant", ("A cat.",))]
    assert contents({**value, question: "Is <image> red?", "image": "a.jpg"})[0][1] == ("Is ", SLOT, " red?")
    assert contents({**value, question: "", "image": ["a.jpg", "b.jpg"]})[0][1] == (SLOT, ImageSlot("b.jpg"))
    assert f"'{question}' has no " in error_of({question: "What?"})
    assert f"'{question}' has no " in error_of({question: "What?", "image": "a.jpg"}, "pairs")
    assert f"'{question}' must be a text (got a list)" in error_of({**value, question: ["What?"]})
    assert "the question is empty" in error_of({**value, question: ""})


def test_pairs_that_are_named_and_missing_list_their_keys():
    words = (
        "no question with its answer (got a, b). Keys are question/answer, input/output, prompt/response, prompt/comp"
    )
    assert words in error_of({"a": 1, "b": 2}, "pairs")


def test_captions_may_bring_their_question():
    value = {"image": "a.jpg", "caption": "A cat.", "prompt": "Describe it."}
    assert contents(value) == [("user", (SLOT, "\nDescribe it.")), ("assistant", ("A cat.",))]
    assert contents(value | {"prompt": ""})[0] == ("user", (SLOT,))
    assert "'prompt' must be a text (got a number)" in error_of(value | {"prompt": 1})


def test_texts_are_documents():
    assert parse({"text": "All of it <image> is text.", "meta": {}}) == Document("All of it <image> is text.")
    assert "the text is empty. Give it one" in error_of({"text": " \n"})
    assert "'text' is missing or empty" in error_of({"text": None})
    assert "'text' must be a text (got a list)" in error_of({"text": ["x"]})
    words = "a text for pretraining has no images. Name its text 'caption', or drop the image."
    assert error_of({"text": "A cat.", "image": "a.jpg"}) == words


def say(role, text, *replies, **keys):
    return {"role": role, "text": text, "replies": list(replies), "message_id": text, **keys}


def test_a_tree_gives_its_best_ranked_path():
    tree = say(
        "prompter",
        "1",
        say("assistant", "2 worse", say("prompter", "3 never", say("assistant", "4 never")), rank=1),
        say("assistant", "2 deleted", rank=-1, deleted=True),
        say(
            "assistant",
            "2 best",
            say("prompter", "3 first", say("assistant", "4 unranked"), say("assistant", "4 ranked", rank=5)),
            say("prompter", "3 second"),
            rank=0,
            deleted=False,
        ),
        say("assistant", "2 unranked", rank=None),
    )
    value = {"message_tree_id": "1", "tree_state": "ready_for_export", "prompt": tree}
    texts = [content[0] for _, content in contents(value)]
    assert texts == ["1", "2 best", "3 first", "4 ranked"]
    assert [role for role, _ in contents(value)] == ["user", "assistant"] * 2


def test_a_tree_ends_with_its_last_answer():
    tree = say("prompter", "1", say("assistant", "2", say("prompter", "3 unanswered")))
    assert [content[0] for _, content in contents({"prompt": tree})] == ["1", "2"]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"prompt": say("prompter", "1")}, "at least one question and one answer"),
        ({"prompt": say("assistant", "1", say("prompter", "2", say("assistant", "3")))}, "turn 1 is the assistant's"),
        (
            {"prompt": say("prompter", "1", say("bot", "2"))},
            "turn 2 has the unknown role 'bot'. Roles are prompter and",
        ),
        ({"prompt": say("prompter", "1", say("assistant", None))}, "turn 2: 'text' must be a text (got nothing)"),
        ({"prompt": say("prompter", "1", say("assistant", " "))}, "turn 2: the answer is empty"),
        ({"prompt": say("prompter", "1") | {"replies": "x"}}, "turn 1: 'replies' must be a list of messages"),
        ({"prompt": say("prompter", "1", "x")}, "turn 1: 'replies' must be a list of messages"),
        ({"prompt": say("prompter", "1", say("assistant", "2", rank="a"))}, "the 'rank' of a reply must be a number"),
        ({"prompt": "Hi", "message_tree_id": "1"}, "'prompt' must be a tree of messages (got a text)"),
        (
            {"message_id": "1", "parent_id": None, "text": "Hi", "role": "prompter"},
            "a single OpenAssistant message, whose dialogue is spread over the file. Take the trees file instead",
        ),
    ],
)
def test_malformed_trees_say_what_is_wrong(value, words):
    assert words in error_of(value)
    assert words in error_of(value, "oasst")
