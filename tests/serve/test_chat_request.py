"""The fields of a request: served, passed over, or refused since they would change the answer."""

import json

import pytest

from mmtune.chat.generate import Decoding
from mmtune.serve.chat_messages import MessageLimits
from mmtune.serve.chat_request import FIELDS, IGNORED, NEUTRAL, read_request
from mmtune.serve.refusals import Refused

HI = {"messages": [{"role": "user", "content": "Hi"}]}
SERVER = Decoding(max_new_tokens=100, temperature=0.5, top_p=0.9, top_k=7, repetition_penalty=1.1)


def read(body=None, **fields):
    body = json.dumps(HI | fields) if body is None else body
    return read_request(body.encode() if isinstance(body, str) else body, "mine", SERVER, MessageLimits())


def test_what_is_left_out_is_the_servers():
    asked = read()
    assert (asked.model, asked.decoding, asked.seed, asked.stop) == ("mine", SERVER, None, ())
    assert not asked.is_stream
    assert not asked.has_usage
    assert read(**dict.fromkeys([*FIELDS[2:], *IGNORED, *NEUTRAL])) == asked


def test_what_is_said_is_taken():
    said = {"model": "owls", "temperature": 0, "top_p": 1, "top_k": 0, "repetition_penalty": 1, "max_tokens": 20}
    asked = read(**said, seed=-3, stop=["a", "b"], stream=True, stream_options={"include_usage": True})
    assert asked.decoding == Decoding(20, 0, 1, 0, 1)
    assert (asked.model, asked.seed, asked.stop) == ("owls", -3, ("a", "b"))
    assert asked.is_stream
    assert asked.has_usage
    assert read(stop="a").stop == ("a",)
    assert read(max_completion_tokens=30).decoding.max_new_tokens == 30
    assert read(max_completion_tokens=30, max_tokens=30).decoding.max_new_tokens == 30


@pytest.mark.parametrize("name", IGNORED)
def test_what_changes_no_answer_is_passed_over(name):
    assert read(**{name: "anything"}) == read()


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in NEUTRAL.items() for value in values])
def test_values_that_change_no_answer_are_taken(name, value):
    assert read(**{name: value}) == read()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n": 2}, "n: is not served here (got 2). Leave it out. Ask several times, each with its own seed."),
        ({"n": True}, "n: is not served here (got true)."),
        ({"logprobs": True}, "logprobs: is not served here (got true)."),
        ({"frequency_penalty": 0.5}, "frequency_penalty: is not served here (got 0.5)."),
        ({"logit_bias": {"5": 1}}, 'logit_bias: is not served here (got {"5": 1}).'),
        (
            {"tools": [{"type": "function"}]},
            'tools: is not served here (got [{"type": "function"}]). Leave it out. `mmtune',
        ),
        ({"tool_choice": "required"}, 'tool_choice: is not served here (got "required").'),
        ({"response_format": {"type": "json_object"}}, "response_format: is not served here"),
        ({"modalities": ["audio"]}, "modalities: is not served here"),
        ({"temprature": 1}, "temprature: unknown field. Did you mean 'temperature'?"),
        ({"temperature": "hot"}, "temperature: must be 0, or a number from 0.001 to 2 (got a text)."),
        ({"temperature": -1}, "temperature: must be 0, or a number from 0.001 to 2 (got -1)."),
        ({"temperature": 1e-30}, "temperature: must be 0, or a number from 0.001 to 2 (got 1e-30)."),
        ({"temperature": True}, "temperature: must be 0, or a number from 0.001 to 2 (got true or false)."),
        ({"top_p": 0}, "top_p: must be a number above 0, up to 1 (got 0)."),
        ({"top_k": 1.5}, "top_k: must be a whole number, 0 for all (got 1.5)."),
        ({"seed": 2**63}, "seed: must be a whole number of 64 bits (got 9223372036854775808)."),
        ({"seed": 10**400}, "seed: must be a whole number of 64 bits (got a number)."),
        ({"max_tokens": 0}, "max_tokens: must be a whole number from 1 (got 0)."),
        ({"max_tokens": 101}, "max_tokens: an answer has at most 100 tokens here (got 101)."),
        ({"max_completion_tokens": 101}, "max_completion_tokens: an answer has at most 100 tokens here (got 101)."),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_completion_tokens: is 6, and max_tokens is 5."),
        ({"model": 5}, "model: must be a name (got a number)."),
        ({"stream": "yes"}, "stream: must be true or false (got a text)."),
        ({"stream_options": {"include_usage": True}}, "stream_options: is for streams. Set stream: true"),
        ({"stream": True, "stream_options": []}, "stream_options: must be an object (got a list)."),
        (
            {"stream": True, "stream_options": {"include_usage": 1}},
            "stream_options.include_usage: must be true or false",
        ),
        ({"stop": ["a"] * 5}, "stop: must be a text, or a list of at most 4 (got a list)."),
        ({"stop": [""]}, "stop: each must be a text of 1 to 200 characters."),
        ({"stop": ["a" * 201]}, "stop: each must be a text of 1 to 200 characters."),
        ({"stop": [5]}, "stop: each must be a text of 1 to 200 characters."),
        ({"stop": {"a": 1}}, "stop: must be a text, or a list of at most 4 (got an object)."),
        ({"messages": None}, "messages: must be a list with a message or more (got nothing)."),
    ],
)
def test_what_would_change_the_answer_is_refused(fields, message):
    with pytest.raises(Refused) as caught:
        read(**fields)
    assert str(caught.value).startswith(message)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "body: is no JSON: Expecting value"),
        ("{", "body: is no JSON"),
        (b"\xff\xfe", "body: is no JSON"),
        ("[]", "body: must be a JSON object (got a list)."),
        ('{"temperature": NaN}', "body: is no JSON: NaN is no number of JSON."),
        ('{"a": ' + "[" * 100_000, "body: its lists are nested too deeply."),
        ('{"a": ' + "9" * 5_000 + "}", "body: is no JSON"),
        ("[" + "[]," * 150_000 + "[]]", "body: more than 200,000 brackets and commas. Send less text."),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else None,
)
def test_what_is_no_json_is_refused(body, message):
    with pytest.raises(Refused) as caught:
        read(body)
    assert str(caught.value).startswith(message)


def test_numbers_without_end_are_refused():
    with pytest.raises(Refused, match="temperature: must be 0, or a number"):
        read('{"temperature": 1e999, "messages": []}')
