import base64

import pytest
from parsing import contents, error_of, parse

from mmtune.conversation import ImageSlot, Message


def talk_of(*contents, **keys):
    """OpenAI messages from the user's first, each a content or a whole message."""
    sides = ("user", "assistant")
    turns = [
        content if isinstance(content, dict) else {"role": sides[number % 2], "content": content}
        for number, content in enumerate(contents)
    ]
    return {"messages": turns, **keys}


def test_sharegpt_takes_roles_a_system_key_and_images():
    value = {
        "conversations": [{"role": "user", "content": "<image>What?"}, {"role": "assistant", "content": "A cat."}],
        "system": "Be kind.",
        "images": ["a.jpg"],
        "tools": "",
    }
    expected = [("system", ("Be kind.",)), ("user", (ImageSlot("a.jpg"), "What?")), ("assistant", ("A cat.",))]
    assert contents(parse(value)) == expected
    value["conversations"] = [{"from": "human", "value": "<image>What?"}, {"from": "gpt", "value": "A cat."}]
    assert contents(parse(value)) == contents(parse(value, "sharegpt")) == expected
    assert contents(parse(value | {"system": ""})) == expected[1:]
    value["conversations"].insert(0, {"from": "system", "value": "Be brief."})
    assert "has 'system' and a system turn. Keep one of the two." in error_of(value)


def test_parts_of_a_content_stand_in_place():
    data = "data:image/png;base64," + base64.b64encode(b"png").decode()
    parts = [
        {"type": "text", "text": "One "},
        {"type": "text", "text": "<image>", "image_url": None},
        {"type": "image_url", "image_url": {"url": "a.jpg", "detail": "low"}},
        {"type": "image_url", "image_url": data},
        {"type": "image"},
        {"type": "image", "image": {"bytes": b"jpg", "path": "c.jpg"}, "text": None},
        {"type": "image", "path": "d.jpg"},
        {"type": "text", "text": " and "},
        {"type": "image", "url": "file:///e%20f.jpg"},
        {"type": "image", "image": None},
    ]
    answer = [{"type": "text", "text": "Many "}, {"type": "text", "text": "images."}]
    system = {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]}
    user = {"role": "user", "content": parts}
    value = talk_of(system, user, {"role": "user", "content": answer}, images=["1.jpg", "2.jpg"])
    value["messages"][2]["role"] = "assistant"
    system_turn, question, reply = parse(value).messages
    assert (system_turn, reply) == (Message("system", ("Be kind.",)), Message("assistant", ("Many images.",)))
    slots = ["a.jpg", "image 2 of the record", "1.jpg", "c.jpg", "d.jpg", " and ", "/e f.jpg", "2.jpg"]
    assert [part if isinstance(part, str) else part.path for part in question.content] == ["One <image>", *slots]
    assert [slot.data for slot in question.image_slots] == [None, b"png", None, b"jpg", None, None, None]


@pytest.mark.parametrize(
    ("content", "images", "words"),
    [
        ([{"type": "image"}], [], "0 images but 1 '<image>' mark in the user's text. Each image needs one mark."),
        ([{"type": "image"}], ["a.jpg", "b.jpg"], "2 images but 1 '<image>' mark"),
        ([{"type": "text", "text": "<image>"}], ["a.jpg"], "1 image but 0 '<image>' marks"),
        ([{"type": "video", "video": "a.mp4"}], [], "turn 1: part 1 is 'video'. Parts are text, image and image_url."),
        ([{"text": "x"}], [], "turn 1: part 1 is None."),
        ([{"type": "text"}], [], "turn 1: part 1 has no 'text' (got nothing)"),
        (
            [{"type": "image_url", "image_url": {"url": "https://a.org/b.png"}}],
            [],
            "image 1 of the record is on the web",
        ),
        (
            [{"type": "image_url", "image_url": {"detail": "low"}}],
            [],
            "must be a path or a list of paths (got an object",
        ),
        ([], [], "turn 1: the question is empty"),
        ([{"type": "text", "text": ""}], [], "turn 1: the question is empty"),
    ],
)
def test_malformed_parts_say_what_is_wrong(content, images, words):
    assert words in error_of(talk_of(content, "Yes.", images=images))


def test_images_stand_in_user_turns_only():
    message = error_of(talk_of("Draw.", [{"type": "image", "image": "a.jpg"}]))
    assert message == "turn 2: an image in the assistant's turn. Images stand in user turns only."
    assert "turn 2: the answer is empty" in error_of(talk_of("Hi", []))


@pytest.mark.parametrize(
    "switch", [{"loss": False}, {"loss": 0}, {"weight": 0}, {"weight": 0.0}, {"loss": None, "weight": 0}]
)
def test_answers_may_be_left_untrained(switch):
    first = {"role": "assistant", "content": "No.", **switch}
    last = {"role": "assistant", "content": "Yes.", "loss": True, "weight": 1}
    value = talk_of(
        {"role": "user", "content": "a", "loss": False}, first, {"role": "user", "content": "b", "weight": 0}, last
    )
    assert [message.supervised for message in parse(value).messages] == [True, False, True, True]
    assert "no answer is trained: each has loss or weight 0" in error_of(talk_of("a", first))
    talk = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "No.", **switch}]
    assert "no answer is trained" in error_of({"conversations": talk})


@pytest.mark.parametrize(
    ("role", "switch", "words"),
    [
        ("user", {"loss": True}, "turn 1: 'loss' is set on the user's turn. Only answers are trained."),
        ("user", {"weight": 1}, "turn 1: 'weight' is set on the user's turn"),
        ("assistant", {"weight": 0.5}, "turn 2: 'weight' is true or false, 1 or 0 (got 0.5)."),
        ("assistant", {"loss": "false"}, "turn 2: 'loss' is true or false, 1 or 0 (got 'false')."),
        ("assistant", {"loss": []}, "turn 2: 'loss' is true or false, 1 or 0 (got [])."),
    ],
)
def test_wrong_weights_say_so(role, switch, words):
    turns = [{"role": each, "content": "x"} | (switch if each == role else {}) for each in ("user", "assistant")]
    assert words in error_of({"messages": turns})


@pytest.mark.parametrize("key", ["video", "videos", "audios"])
def test_videos_and_sounds_are_refused(record, key):
    assert error_of(record("Hi", "Hello.") | {key: ["a.mp4"]}).startswith(f"has '{key}', which are not read.")
