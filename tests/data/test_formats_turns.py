import pytest
from parsing import contents, error_of, parse

from mmtune.conversation import ImageSlot, Message


def test_llava(record):
    talk = record("<image>\nWhat?", "A cat.", "Sure?", "Yes.", image="cat.jpg", id="7")
    assert contents(parse(talk)) == [
        ("user", (ImageSlot("cat.jpg"), "\nWhat?")),
        ("assistant", ("A cat.",)),
        ("user", ("Sure?",)),
        ("assistant", ("Yes.",)),
    ]


def test_llava_takes_a_system_turn_and_openai_names(record):
    talk = record("Hi", "Hello.")
    talk["conversations"].insert(0, {"from": "system", "value": "Be kind."})
    talk["conversations"][1]["from"] = "user"
    talk["conversations"][2]["from"] = "assistant"
    assert [message.role for message in parse(talk).messages] == ["system", "user", "assistant"]


def test_caption():
    expected = (Message("user", (ImageSlot("a.jpg"),)), Message("assistant", ("A cat.",)))
    assert parse({"image": "a.jpg", "caption": "A cat."}).messages == expected
    assert parse({"image": ["a.jpg", "b.jpg"], "caption": "Cats."}).images == ("a.jpg", "b.jpg")


@pytest.mark.parametrize("images", [{"image": "a.jpg"}, {"images": ["a.jpg"]}, {"images": "a.jpg", "image": None}])
def test_messages(images):
    talk = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "What is <image>?"},
        {"role": "assistant", "content": "A cat."},
    ]
    assert contents(parse({"messages": talk} | images)) == [
        ("system", ("Be kind.",)),
        ("user", ("What is ", ImageSlot("a.jpg"), "?")),
        ("assistant", ("A cat.",)),
    ]


@pytest.mark.parametrize("identity", [{}, {"id": 5}, {"id": "5"}, {"id": None}])
def test_an_id_may_be_missing_or_of_any_type(record, identity):
    assert parse(record("Hi", "Hello.") | identity) == parse(record("Hi", "Hello."))


@pytest.mark.parametrize("image", ["a.jpg", ["a.jpg"]])
def test_an_image_is_a_text_or_a_list(record, image):
    assert parse(record("<image>", "A cat.", image=image)).images == ("a.jpg",)


@pytest.mark.parametrize("image", [None, "", []])
def test_no_image_has_several_spellings(record, image):
    assert parse(record("Hi", "Hello.") | {"image": image}).images == ()


def test_two_images_in_one_turn_stand_in_place(record):
    talk = record("Left <image> right <image>?", "Two.", image=["1.jpg", "2.jpg"])
    expected = ("Left ", ImageSlot("1.jpg"), " right ", ImageSlot("2.jpg"), "?")
    assert parse(talk).messages[0].content == expected


def test_two_images_in_two_turns_stand_in_place(record):
    talk = record("<image>What?", "A cat.", "And<image>", "A dog.", image=["1.jpg", "2.jpg"])
    conversation = parse(talk)
    assert [message.images for message in conversation.messages] == [("1.jpg",), (), ("2.jpg",), ()]
    assert conversation.images == ("1.jpg", "2.jpg")


def test_marks_in_answers_are_text(record):
    talk = record("<image> What stands here?", "The word <image>.", image="1.jpg")
    assert parse(talk).messages[1].content == ("The word <image>.",)


@pytest.mark.parametrize(
    ("turns", "image", "words"),
    [
        (("What?", "A cat."), "1.jpg", "1 image but 0 '<image>' marks in the question"),
        (("<image>", "A cat."), None, "0 images but 1 '<image>' mark in the question"),
        (("<image><image>", "A cat."), "1.jpg", "1 image but 2 '<image>' marks"),
        (("<image>", "A cat."), ["1.jpg", "2.jpg"], "2 images but 1 '<image>' mark "),
        (("What?", "<image>"), "1.jpg", "1 image but 0 '<image>' marks"),
    ],
)
def test_each_image_needs_one_mark(record, turns, image, words):
    message = error_of(record(*turns, image=image))
    assert words in message
    assert message.endswith("Each image needs one mark.")


@pytest.mark.parametrize(
    ("roles", "words"),
    [
        (("human", "bot"), "turn 2 has the unknown role 'bot'. Roles are human, gpt and system."),
        (("human", "human", "gpt"), "turn 2 is the user's, expected the assistant's"),
        (("human", "gpt", "gpt"), "turn 3 is the assistant's, expected the user's"),
        (("gpt", "human", "gpt"), "turn 1 is the assistant's, expected the user's"),
        (("system", "gpt", "human"), "turn 2 is the assistant's, expected the user's"),
        (("human", "gpt", "system"), "turn 3 is the system's, expected the user's"),
        (("human", "gpt", "human"), "ends with the user's turn"),
        (("human",), "at least one question and one answer"),
        (("system", "human"), "at least one question and one answer"),
        ((), "at least one question and one answer"),
    ],
)
def test_turns_are_never_merged_or_dropped(roles, words):
    assert words in error_of({"conversations": [{"from": role, "value": "text"} for role in roles]})


@pytest.mark.parametrize("answer", ["", " \n"])
def test_an_empty_answer_is_an_error(record, answer):
    assert "turn 4: the answer is empty" in error_of(record("Hi", "Hello.", "Sure?", answer))


def test_an_empty_question_is_an_error_unless_it_shows_an_image(record):
    assert "turn 1: the question is empty" in error_of(record("", "Hello."))
    assert parse(record("<image>", "A cat.", image="1.jpg")).images == ("1.jpg",)


def test_half_of_a_surrogate_pair_is_an_error_and_a_whole_one_is_text(record):
    assert "turn 2 holds half of a surrogate pair" in error_of(record("Hi", "\ud83d"))
    assert parse(record("Hi", "\U0001f600")).messages[1].text == "\U0001f600"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"conversation": []}, "key 'conversation' is not known. Did you mean 'conversations'?"),
        ({"message": []}, "Did you mean 'messages'?"),
        (
            {"words": "x", "id": 1},
            "no known format (got words, id). A record has one of: conversations, messages, instruction, question and",
        ),
        ({}, "no known format (got an object without keys)"),
        ([1], "a record is a JSON object (got a list)"),
        (None, "a record is a JSON object (got nothing)"),
        ({"conversations": "Hi"}, "'conversations' must be a list of turns (got a text)"),
        ({"conversations": ["Hi"]}, "turn 1 must be an object with 'from' and 'value' (got a text)"),
        ({"conversations": [{"value": "Hi"}]}, "turn 1: 'from' must name the role (got nothing)"),
        ({"conversations": [{"from": "human", "value": 5}]}, "turn 1: 'value' must be a text (got a number)"),
        ({"messages": [{"role": "human", "content": "x"}]}, "unknown role 'human'. Roles are system, user, assistant."),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "turn 1: part 1 must be an object with 'type' (got a"),
        ({"caption": "A cat."}, "no 'image'"),
        ({"caption": None, "image": "1.jpg"}, "'caption' must be a text (got nothing)"),
        ({"caption": " ", "image": "1.jpg"}, "turn 2: the answer is empty"),
        ({"caption": "A cat.", "image": 5}, "'image' must be a path or a list of paths (got a number)"),
        ({"caption": "A cat.", "image": ["1.jpg", None]}, "'image' must be a path or a list of paths"),
        ({"caption": "A cat.", "image": "1.jpg", "images": ["2.jpg"]}, "both 'image' and 'images'"),
    ],
)
def test_malformed_records_say_what_is_wrong(value, words):
    assert words in error_of(value)


def test_messages_can_be_written_whatever_they_quote():
    message = error_of({"conversations": [{"from": "\ud83d" + "x" * 1000, "value": "Hi"}]})
    assert "unknown role '\\ud83dxxx" in message
    assert len(message.encode()) < 200
