import pytest
from parsing import contents, error_of, parse

from mmtune.conversation import Document, ImageSlot
from mmtune.data.formats import FORMATS, detect_format, parse_record
from mmtune.data.records import Record
from mmtune.errors import ConfigError, DataError

TALK = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}]
ROLES = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
TREE = {"role": "prompter", "text": "Hi", "replies": [{"role": "assistant", "text": "Hello."}]}
DETECTED = [
    ("llava", {"conversations": TALK}),
    ("sharegpt", {"conversations": ROLES}),
    ("sharegpt", {"conversations": TALK, "system": "Be kind."}),
    ("sharegpt", {"conversations": TALK, "tools": ""}),
    ("messages", {"messages": ROLES}),
    ("oasst", {"prompt": TREE}),
    ("alpaca", {"instruction": "Hi", "output": "Hello."}),
    ("pairs", {"question": "Hi", "answer": "Hello."}),
    ("pairs", {"input": "Hi", "output": "Hello."}),
    ("pairs", {"prompt": "Hi", "response": "Hello."}),
    ("pairs", {"prompt": "Hi", "completion": "Hello."}),
    ("pairs", {"query": "Hi", "response": "Hello."}),
    ("caption", {"caption": "A cat.", "image": "a.jpg"}),
    ("text", {"text": "All of it."}),
    ("moss", {"chat": {"turn_1": {"Human": "<|Human|>: Hi<eoh>", "MOSS": "<|MOSS|>: Hello.<eom>"}}}),
    ("msagent", {"conversations": "[{'from': 'user', 'value': 'Hi'}, {'from': 'assistant', 'value': 'Hello.'}]"}),
]


@pytest.mark.parametrize(("name", "value"), DETECTED)
def test_every_format_is_detected_and_can_be_named(name, value):
    assert detect_format(Record({"id": 1, **value}, "data.json", 1)) == name
    assert parse({"id": 1, **value}) == parse(value, name)


def test_every_format_of_the_table_is_detected():
    assert {name for name, _ in DETECTED} == {*FORMATS}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"conversations": TALK}, {"messages": ROLES}),
        ({"messages": ROLES}, {"prompt": "Hi", "response": "Hello."}),
        ({"prompt": TREE}, {"instruction": "Hi", "output": "Hello."}),
        ({"instruction": "Hi", "output": "Hello.", "input": ""}, {"text": "### Instruction: Hi"}),
        ({"instruction": "Hi", "input": "x", "output": "Hello."}, {"caption": "x", "image": "a.jpg"}),
        ({"question": "What?", "answer": "A cat."}, {"caption": "A cat.", "image": "a.jpg"}),
        ({"question": "What?", "answer": "A cat."}, {"input": "x", "output": "y"}),
        ({"input": "x", "output": "y"}, {"prompt": "x", "response": "z"}),
        ({"prompt": "x", "response": "y"}, {"completion": "z"}),
        ({"prompt": "x", "completion": "y"}, {"query": "z", "caption": "w"}),
        ({"query": "x", "response": "y"}, {"caption": "w", "text": "v"}),
        ({"caption": "A cat.", "image": "a.jpg"}, {"text": "a cat"}),
    ],
)
def test_where_two_formats_fit_the_first_of_the_table_counts(first, second):
    both = {**second, **first}
    assert detect_format(Record(both, "data.json", 1)) == detect_format(Record(first, "data.json", 1))
    name = detect_format(Record(first, "data.json", 1))
    assert parse(both) == parse(both, name)
    alone = first | {key: second[key] for key in ("image",) if key in second}
    assert parse(both).messages == parse(alone, name).messages


def test_keys_without_a_value_do_not_decide():
    """As a data set of several formats has them, whose rows all have the same columns."""
    empty = dict.fromkeys(("conversations", "messages", "instruction", "question", "answer", "caption", "image"))
    assert parse(empty | {"text": "All of it."}) == Document("All of it.")
    assert parse(empty | {"messages": ROLES}).messages[1].text == "Hello."


def test_a_record_with_a_problem_is_an_error_at_its_place():
    with pytest.raises(DataError, match=r"^data.json:8: broken JSON: x\. Mend the line\.$"):
        parse_record(Record(None, "data.json", 8, "broken JSON: x. Mend the line."))


def test_columns_rename_before_the_format_is_detected():
    row = {"问题": "What?", "回答": "A cat.", "图": "a.jpg", "text": "else"}
    columns = {"question": "问题", "answer": "回答", "image": "图"}
    conversation = parse_record(Record(row, "data.csv", 1), columns=columns)
    assert contents(conversation) == [("user", (ImageSlot("a.jpg"), "\nWhat?")), ("assistant", ("A cat.",))]
    assert parse_record(Record(row, "data.csv", 1), columns={"text": "问题"}) == Document("What?")


def test_columns_may_swap_names_and_hide_what_they_take():
    row = {"question": "A cat.", "answer": "What?", "caption": "x"}
    swapped = parse_record(Record(row, "data.csv", 1), columns={"question": "answer", "answer": "question"})
    assert [message.text for message in swapped.messages] == ["What?", "A cat."]
    assert parse_record(Record({"caption": "All."}, "data.csv", 1), columns={"text": "caption"}) == Document("All.")


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (
            {"question": "Fragen", "answer": "a"},
            "no column 'Fragen' (for 'question'). Did you mean 'Frage'? There are Frage, a.",
        ),
        ({"questoin": "Frage"}, "columns name 'questoin', which no format reads. Did you mean 'question'?"),
    ],
)
def test_columns_that_do_not_fit_name_the_nearest(columns, words):
    with pytest.raises(DataError) as caught:
        parse_record(Record({"Frage": "What?", "a": "A cat."}, "data.csv", 3), columns=columns)
    assert str(caught.value) == f"data.csv:3: {words}"


def test_a_column_that_is_there_but_empty_is_no_unknown_column():
    row = Record({"Frage": "What?", "a": None}, "data.csv", 3)
    with pytest.raises(DataError, match="'question' has no 'answer' beside it"):
        parse_record(row, columns={"question": "Frage", "answer": "a"})


def test_the_prompt_is_asked_of_captions_without_their_own():
    expected = ("user", (ImageSlot("a.jpg"), "\nDescribe it."))
    plain = {"caption": "A cat.", "image": "a.jpg"}
    own = plain | {"prompt": "What?"}
    assert contents(parse_record(Record(plain, "a.json", 1), prompt="Describe it."))[0] == expected
    assert (
        contents(parse(own))[0][1][1] == contents(parse_record(Record(own, "a", 1), prompt="It?"))[0][1][1] == "\nWhat?"
    )
    assert plain == {"caption": "A cat.", "image": "a.jpg"}
    talk = Record({"messages": ROLES}, "a.json", 1)
    assert parse_record(talk, prompt="Describe it.") == parse_record(talk)


def test_characters_that_no_tokenizer_takes_are_errors_in_every_role():
    for number, role in enumerate(("system", "user", "assistant"), 1):
        for bad, words in (("a\0b", "a NUL character"), ("\ud83d", "half of a surrogate pair")):
            talk = [{"role": "system", "content": "s"}, *map(dict, ROLES)]
            talk[number - 1]["content"] = bad
            assert error_of({"messages": talk}).startswith(f"turn {number} holds {words}"), role
    assert "the text holds a NUL character (\\u0000). Remove it." in error_of({"text": "a\0b"})
    assert "the text holds half of a surrogate pair" in error_of({"text": "\udc00"})


def test_a_format_that_is_named_is_used(record):
    talk = record("Hi", "Hello.")
    assert parse(talk, "llava") == parse(talk)
    assert "'messages' must be a list of turns (got nothing)" in error_of(talk, "messages")
    assert "Did you mean 'conversations'?" in error_of({"conversation": []}, "llava")


def test_an_unknown_format_names_the_nearest(record):
    with pytest.raises(ConfigError, match=r"unknown name 'lava'\. Did you mean 'llava'"):
        parse(record("Hi", "Hello."), "lava")
