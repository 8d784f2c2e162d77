"""OpenAI's messages become the turns that chat makes; what is none is refused with its place."""

import pytest
from data_uris import image_part, png, text_part, uri, user

from mmtune.chat.exchange import question_message
from mmtune.conversation import ImageSlot
from mmtune.errors import DataError
from mmtune.serve.chat_messages import MessageLimits, arranged, read_messages
from mmtune.serve.refusals import Refused

RED = uri(png())
SYSTEM = {"role": "system", "content": "Be brief."}
HI, HELLO = user("Hi"), {"role": "assistant", "content": "Hello."}


def read(*messages, **limits):
    return read_messages(list(messages), MessageLimits(**limits))


def paths(content):
    return tuple(f"image {part.path}" if isinstance(part, ImageSlot) else part for part in content)


@pytest.mark.parametrize("order", ["it", "ti", "iit", "itt", "i", "tii", "t", "tt"])
def test_images_before_or_behind_the_text_stand_where_chat_puts_them(order):
    numbers = {"i": iter("123"), "t": iter("abc")}
    parts = [ImageSlot(next(numbers["i"])) if kind == "i" else next(numbers["t"]) for kind in order]
    text = "\n".join(part for part in parts if isinstance(part, str))
    shown = tuple(part.path for part in parts if isinstance(part, ImageSlot))
    assert arranged(parts) == question_message(text, shown).content


def test_an_image_between_texts_stays_there():
    one, two, three = map(ImageSlot, "123")
    assert paths(arranged(["a", one, "b"])) == ("a\n", "image 1", "\nb")
    assert paths(arranged([one, "a", two, three, "b"])) == ("image 1", "\na\n", "image 2", "\n", "image 3", "\nb")
    assert paths(arranged(["a", one, " ", "b", "c"])) == ("a\n", "image 1", "\nb\nc")


def test_a_dialogue_of_all_that_is_served():
    answer = {"role": "assistant", "content": [text_part("Red.")], "refusal": None, "tool_calls": None, "name": "m"}
    told = {"role": "developer", "content": "Be brief."}
    turns = read(told, user([image_part(RED), text_part("What?")]), answer, user("Sure?"))
    assert [turn.role for turn in turns] == ["system", "user", "assistant", "user"]
    assert turns[1].image_slots[0].data == png()
    assert [turn.text for turn in turns] == ["Be brief.", "\nWhat?", "Red.", "Sure?"]
    assert read(user([{"type": "image_url", "image_url": RED}]))[0].image_slots


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "messages: must be a list with a message or more"),
        (["Hi"], 'messages[0]: must be an object with role and content (got "Hi").'),
        ([user("Hi") | {"role": "usr"}], "messages[0].role: must be one of system, developer, user, assistant"),
        ([{"role": "tool", "content": "4"}], "messages[0].role: tools are not served here"),
        ([user("Hi") | {"tool_calls": [1]}], "messages[0].tool_calls: is not served here."),
        ([user("Hi") | {"contnt": "a"}], "messages[0].contnt: is not served here. Did you mean 'content'?"),
        ([user(None)], "messages[0].content: must be a text, or a list of parts (got nothing)."),
        ([user("")], "messages[0].content: it is empty."),
        ([user([])], "messages[0].content: it is empty."),
        ([user(["Hi"])], "messages[0].content[0]: is no part of a message that is served here"),
        (
            [user([{"type": "input_audio"}])],
            'messages[0].content[0]: is no part of a message that is served here (got "i',
        ),
        ([user([{"type": "image_url"}])], "messages[0].content[0]: is no part of a message"),
        ([HI, HI], "messages[1].role: is the user's, expected the assistant's."),
        ([HELLO, HI], "messages[0].role: is the assistant's, expected the user's."),
        ([HI, HELLO], "messages: the last one is the assistant's. It must be the user's, to be answered."),
        ([SYSTEM], "messages: the last one is the system's."),
        ([SYSTEM, SYSTEM, HI], "messages[1].role: there is one system message, and it stands first."),
        ([HI, HELLO, SYSTEM, HI], "messages[2].role: there is one system message, and it stands first."),
        ([{"role": "system", "content": [image_part(RED)]}, HI], "messages[0].content: only a user's message may have"),
    ],
)
def test_what_is_no_dialogue_is_refused_with_its_place(messages, message):
    with pytest.raises(Refused) as caught:
        read(*messages)
    assert str(caught.value).startswith(message)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:9/cat.png", "is no data URI (http URL), and nothing is fetched from elsewhere."),
        ("https://example.org/cat.png", "is no data URI (https URL), and nothing is fetched from elsewhere."),
        ("file:///etc/passwd", "is no data URI (file URL), and nothing is fetched from elsewhere."),
        ("/etc/passwd", "is no data URI (no URL), and nothing is fetched from elsewhere."),
        ("", "is no data URI (no URL), and nothing is fetched from elsewhere."),
        ("data:image/png,abc", "is a data URI without base64."),
        ("data:image/png;base64", "is a data URI without base64."),
        ("data:image/png;base64,###", "its base64 is broken."),
        ("data:image/png;base64,iVBOR", "its base64 is broken."),
        (uri(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml"), "an SVG drawing, which has no pixels."),
        (uri(b"hello"), "not an image that Pillow can read."),
        (uri(b""), "it is empty."),
    ],
)
def test_images_come_as_data_and_nothing_is_fetched(url, reason):
    with pytest.raises((Refused, DataError)) as caught:
        read(user([text_part("What?"), image_part(url)]))
    assert str(caught.value).startswith(f"messages[0].content[1].image_url: {reason}")


def test_too_much_is_refused_before_it_is_looked_at():
    with pytest.raises(Refused, match=r"messages: 3 images, and 2 fit into the context\. Send fewer\."):
        read(user([image_part("nonsense")] * 3), max_images=2)
    with pytest.raises(Refused, match="more than 5 characters, which fit into no context here"):
        read(user("abc"), HELLO, HI, max_characters=5)
