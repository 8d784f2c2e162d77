"""A dialogue as an object: what a stop, a mistake and a full context leave of it; answers piece by piece."""

import pytest
import torch
from talk_workspace import SYSTEM, TURNS, at_home, home, parts, session

import mmtune.chat.session
from mmtune.chat.generate import Decoding, answer_text, context_length, generate_ids
from mmtune.chat.session import ChatSession
from mmtune.chat.stream import TextStream
from mmtune.conversation import Conversation, Message
from mmtune.data.template import TEMPLATES
from mmtune.errors import ConfigError, DataError, ModelError
from mmtune.parts import Parts
from mmtune.testing import byte_tokenizer

__all__ = ["at_home", "home", "parts", "session"]

QUESTIONS = ("What colour?", "And this?", "Sure?")
IMAGES = (("red.png",), ("my blue.png",), ())
ANSWERS = [answer for _, answer in TURNS]


def test_ids_are_those_of_training_behind_every_answer(session, parts):
    messages = [Message("system", (SYSTEM,))]
    for question, images, expected in zip(QUESTIONS, IMAGES, ANSWERS, strict=True):
        assert session.ask(question, images) == expected
        messages += [session.exchanges[-1].question, Message("assistant", (expected,))]
        assert session.ids == parts.encode(Conversation(tuple(messages))).input_ids
    assert session.image_embeds.shape[0] == 2
    assert session.ending == "stop"


def test_pieces_are_the_answer(session):
    for question, images, expected in zip(QUESTIONS, IMAGES, ANSWERS, strict=True):
        pieces = []
        assert session.ask(question, images, pieces.append) == expected
        assert "".join(pieces) == expected
        assert len(pieces) > 5
        assert not any("\ufffd" in piece for piece in pieces)


@pytest.mark.parametrize("temperature", [0.0, 2.0, 2])
def test_an_answer_is_the_same_where_it_is_told_token_by_token(parts, temperature):
    decoding, found = Decoding(max_new_tokens=12, temperature=temperature), []
    for tell in (None, found.append):
        torch.manual_seed(1)
        (answer,) = generate_ids(parts, [[3, 9, 12]], [None], decoding, tell)
    assert found == answer


@pytest.mark.parametrize("text", ["Aé 你好!", "  spaces  and\n\nlines \n", "😀", ""])
def test_a_stream_of_bytes_never_tells_half_a_character(text):
    tokenizer, pieces = byte_tokenizer(), []
    ids = tokenizer.encode(text, add_special_tokens=False)
    stream = TextStream(lambda each: tokenizer.decode(each).strip(), pieces.append)
    for token in ids:
        stream.add(token)
    stream.end()
    assert "".join(pieces) == text.strip()
    assert not any("\ufffd" in piece for piece in pieces)


def test_a_stream_tells_bytes_that_are_no_character_at_the_end():
    tokenizer, pieces = byte_tokenizer(), []
    stream = TextStream(tokenizer.decode, pieces.append)
    for token in [*tokenizer.encode("a", add_special_tokens=False), *tokenizer.encode("你")[:2]]:
        stream.add(token)
    assert pieces == ["a"]
    stream.end()
    assert "".join(pieces) == tokenizer.decode(stream.ids)


def test_a_stream_goes_on_behind_characters_that_a_later_byte_spoils():
    texts = {1: "a你", 2: "a\ufffd\ufffd", 3: "a\ufffd\ufffdb", 4: "a\ufffd\ufffdb c"}
    pieces = []
    stream = TextStream(lambda ids: texts[len(ids)], pieces.append)
    for token in range(4):
        stream.add(token)
    stream.end()
    assert pieces == ["a你", "\ufffd\ufffdb", " c"]


def test_answers_have_no_control_tokens(parts):
    tokenizer = parts.tokenizer
    ids = [tokenizer.convert_tokens_to_ids(token) for token in ("<|im_start|>", "</s>", "<s>")]
    hi = tokenizer.encode("Hi", add_special_tokens=False)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert answer_text(parts, [ids[0], *hi, *ids[1:], *hi, end]) == "HiHi"


def test_marks_of_the_template_that_are_not_special_do_not_show():
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(["<eoa>", "<|Bot|>", "User"])

    parts = Parts(None, tokenizer, TEMPLATES["internlm_chat"], None)
    ids = tokenizer.encode("<|Bot|>Hi User<eoa>", add_special_tokens=False)
    assert answer_text(parts, ids) == "Hi User"


def stop_after(monkeypatch, count):
    """Press Ctrl-C when so many tokens are there."""
    real = generate_ids

    def stopped(parts, prompts, embeds, decoding, tell):
        left = [count]

        def take(token):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            tell(token)

        return real(parts, prompts, embeds, decoding, take)

    monkeypatch.setattr(mmtune.chat.session, "generate_ids", stopped)


def test_a_stopped_answer_is_kept_closed_as_training_closes_it(session, parts, monkeypatch):
    stop_after(monkeypatch, 5)
    pieces = []
    with pytest.raises(KeyboardInterrupt):
        session.ask("What colour?", ("red.png",), pieces.append)
    assert session.ending == "interrupted"
    assert "".join(pieces) == ANSWERS[0][:5].rstrip()
    question = session.exchanges[-1].question
    turns = (Message("system", (SYSTEM,)), question, Message("assistant", (ANSWERS[0][:5],)))
    assert session.ids == parts.encode(Conversation(turns)).input_ids
    monkeypatch.undo()
    assert session.retry() == ANSWERS[0]
    assert len(session.exchanges) == 1


def test_an_answer_stopped_before_its_first_word_takes_the_question_back(session, monkeypatch):
    session.ask("What colour?", ("red.png",))
    before = session.ids
    stop_after(monkeypatch, 0)
    with pytest.raises(KeyboardInterrupt):
        session.ask("Sure?")
    assert session.ids == before


@pytest.mark.parametrize(
    ("question", "images", "error"),
    [
        ("What?", ("nope.png",), DataError),
        ("What?", ("data.json",), DataError),
        ("", (), ConfigError),
        ("word " * 200, (), ConfigError),
        ("\ud83d", (), DataError),
    ],
)
def test_a_question_that_fails_leaves_all_as_it_was(session, question, images, error):
    session.ask("What colour?", ("red.png",))
    before = session.ids
    with pytest.raises(error):
        session.ask(question, images)
    assert session.ids == before
    assert session.ask("And this?", ("my blue.png",)) == ANSWERS[1]


def test_memory_that_is_out_is_one_line(session, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(mmtune.chat.session, "generate_ids", full)
    with pytest.raises(ModelError, match="question: memory is out"):
        session.ask("Hi")
    assert session.exchanges == []


def test_the_context_drops_whole_exchanges_and_their_images(parts, at_home):
    session = ChatSession(parts, Decoding(max_new_tokens=20), SYSTEM, context=140)
    for number in range(6):
        session.ask(f"Question {number}?", ("red.png",) if number % 2 else ())
        prompt = session.ids[: len(session.ids)]
        assert len(prompt) <= 140 + 2  # what closes an answer may lie beyond it
        assert prompt.count(-200) == parts.num_image_tokens * sum(
            bool(each.question.images) for each in session.exchanges[session.num_unread :]
        )
    assert session.num_unread > 0
    assert len(session.exchanges) == 6
    kept = tuple(
        turn
        for each in session.exchanges[session.num_unread :]
        for turn in (each.question, Message("assistant", (session.text(each.said[0]),)))
    )
    fresh = parts.encode(Conversation((Message("system", (SYSTEM,)), *kept[:1])), add_generation_prompt=True)
    assert session.ids[: len(fresh.input_ids)] == fresh.input_ids
    while session.exchanges:
        session.undo()
    assert session.num_unread == 0


def test_an_answer_ends_where_the_context_does(parts, at_home):
    session = ChatSession(parts, Decoding(max_new_tokens=400), None, context=80)
    session.ask("Why? " * 8)
    prompt = len(session.ids) - len(session.exchanges[0].said[0]) - 2
    assert prompt + len(session.exchanges[0].said[0]) <= 80


def test_the_context_is_that_of_the_model(parts):
    assert context_length(parts) == 512
