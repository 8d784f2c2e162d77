"""The body of `/v1/chat/completions`, read and checked. A field that is not served is refused, not passed over."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from mmtune.chat.generate import Decoding
from mmtune.conversation import Message
from mmtune.data.dialogue import half_character, kind_of
from mmtune.lookup import nearest
from mmtune.serve.chat_messages import MessageLimits, read_messages
from mmtune.serve.refusals import Refused

MAX_STOPS, MAX_STOP_CHARACTERS = 4, 200
MAX_MARKS = 200_000
"""Of `[`, `{` and `,` in a body. Many empty lists in one of 32 MB would take a GB once read."""


@dataclass(frozen=True)
class ChatRequest:
    """What is asked.

    Attributes:
        model: its name.
        messages: the dialogue, the question last.
        decoding: how the answer is chosen.
        seed: of draws; None draws one.
        stop: texts that end the answer and are no part of it.
        is_stream: whether the answer is sent while it is made.
        has_usage: whether a stream ends with the numbers of tokens.
    """

    model: str
    messages: tuple[Message, ...]
    decoding: Decoding
    seed: int | None
    stop: tuple[str, ...]
    is_stream: bool
    has_usage: bool


@dataclass(frozen=True)
class Number:
    """A field with a number.

    Attributes:
        is_right: whether a value is in range.
        range: in words.
        is_whole: whether it must be a whole number.
    """

    is_right: Callable[[Any], bool]
    range: str
    is_whole: bool = False


NUMBERS: dict[str, Number] = {
    "temperature": Number(lambda value: value == 0 or 0.001 <= value <= 2, "0, or a number from 0.001 to 2"),
    "top_p": Number(lambda value: 0 < value <= 1, "a number above 0, up to 1"),
    "top_k": Number(lambda value: 0 <= value < 2**31, "a whole number, 0 for all", is_whole=True),
    "repetition_penalty": Number(lambda value: 0 < value <= 100, "a number above 0, 1 for none"),
    "seed": Number(lambda value: -(2**63) <= value < 2**63, "a whole number of 64 bits", is_whole=True),
    "max_tokens": Number(lambda value: value >= 1, "a whole number from 1", is_whole=True),
    "max_completion_tokens": Number(lambda value: value >= 1, "a whole number from 1", is_whole=True),
}
FIELDS = ("model", "messages", "stream", "stream_options", "stop", *NUMBERS)
"""What is served."""

IGNORED = (
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "parallel_tool_calls",
    "prediction",
)
"""What changes no answer here, and is passed over."""

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "min_p": (0,),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "audio": (),
    "reasoning_effort": ("none",),
    "verbosity": (),
    "web_search_options": (),
}
"""What would change the answer, and its values that do not, which are taken; so is null."""

MENDS = {
    "n": "Ask several times, each with its own seed.",
    "tools": "`mmtune chat --tools` runs tools.",
    "response_format": "Ask for the form in words.",
}


def read_request(body: bytes | bytearray, default_model: str, decoding: Decoding, limits: MessageLimits) -> ChatRequest:
    """Return what a body asks.

    Args:
        body: JSON.
        default_model: which answers where none is named.
        decoding: what is taken where a field is left out; its `max_new_tokens` is also the most that may be asked.
        limits: of the messages.

    Raises:
        Refused: it is wrong; the place is the field.
        DataError: an image is wrong.
    """
    values = _json_object(body)
    for key, value in values.items():
        _check_served(key, value)
    numbers = {name: _number(values, name) for name in NUMBERS}
    asked = {name: numbers[name] for name in ("temperature", "top_p", "top_k", "repetition_penalty")}
    changes: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    most = _max_tokens(numbers["max_tokens"], numbers["max_completion_tokens"], decoding.max_new_tokens)
    is_stream = _flag(values, "stream", "stream")
    return ChatRequest(
        _model(values.get("model"), default_model),
        read_messages(values.get("messages"), limits),
        replace(decoding, max_new_tokens=most, **changes),
        numbers["seed"],
        _stops(values.get("stop")),
        is_stream,
        _has_usage(values.get("stream_options"), is_stream),
    )


def _json_object(body: bytes | bytearray) -> dict[str, Any]:
    if sum(map(body.count, (b"[", b"{", b","))) > MAX_MARKS:
        raise Refused(400, "body", f"more than {MAX_MARKS:,} brackets and commas. Send less text.")
    try:
        values = json.loads(body, parse_constant=_refuse_constant)
    except RecursionError:
        raise Refused(400, "body", "its lists are nested too deeply.") from None
    except ValueError as error:
        raise Refused(400, "body", f"is no JSON: {error!s:.100}.") from None
    if not isinstance(values, dict):
        raise Refused(400, "body", f"must be a JSON object (got {kind_of(values)}).")
    return values


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _check_served(key: str, value: Any) -> None:
    if key in FIELDS or key in IGNORED or value is None:
        return
    if key not in NEUTRAL:
        known = (*FIELDS, *IGNORED, *NEUTRAL)
        raise Refused(400, f"{key:.40}", f"unknown field.{nearest(key, known)}", "unknown_parameter")
    if not any(value == each and isinstance(value, bool) == isinstance(each, bool) for each in NEUTRAL[key]):
        mend = f"Leave it out. {MENDS.get(key, '')}"
        shown = json.dumps(value)
        got = shown if len(shown) <= 40 else kind_of(value)
        raise Refused(400, key, f"is not served here (got {got}). {mend}", "unsupported_parameter")


def _number(values: dict[str, Any], name: str) -> Any:
    value, number = values.get(name), NUMBERS[name]
    if value is None:
        return None
    kinds = int if number.is_whole else (int, float)
    is_number = isinstance(value, kinds) and not isinstance(value, bool)
    is_endless = isinstance(value, float) and not math.isfinite(value)
    if not is_number or is_endless or not number.is_right(value):
        shown = f"{value:.6g}" if isinstance(value, float) else kind_of(value)
        shown = str(value) if is_number and isinstance(value, int) and abs(value) < 2**64 else shown
        raise Refused(400, name, f"must be {number.range} (got {shown}).")
    return value if number.is_whole else float(value)


def _max_tokens(old: int | None, new: int | None, most: int) -> int:
    if old is not None and new is not None and old != new:
        raise Refused(400, "max_completion_tokens", f"is {new}, and max_tokens is {old}. Leave max_tokens out.")
    asked = old if new is None else new
    if asked is not None and asked > most:
        name = "max_tokens" if new is None else "max_completion_tokens"
        raise Refused(400, name, f"an answer has at most {most} tokens here (got {asked}).")
    return most if asked is None else asked


def _model(value: Any, default: str) -> str:
    if value is None or isinstance(value, str):
        return default if value is None else value
    raise Refused(400, "model", f"must be a name (got {kind_of(value)}).")


def _flag(values: dict[str, Any], name: str, place: str) -> bool:
    value = values.get(name)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise Refused(400, place, f"must be true or false (got {kind_of(value)}).")


def _has_usage(options: Any, is_stream: bool) -> bool:
    if options is None:
        return False
    if not isinstance(options, dict):
        raise Refused(400, "stream_options", f"must be an object (got {kind_of(options)}).")
    if not is_stream:
        raise Refused(400, "stream_options", "is for streams. Set stream: true, or leave it out.")
    return _flag(options, "include_usage", "stream_options.include_usage")


def _stops(value: Any) -> tuple[str, ...]:
    texts = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or len(texts) > MAX_STOPS:
        raise Refused(400, "stop", f"must be a text, or a list of at most {MAX_STOPS} (got {kind_of(value)}).")
    for text in texts:
        if not isinstance(text, str) or not 1 <= len(text) <= MAX_STOP_CHARACTERS or half_character(text):
            raise Refused(400, "stop", f"each must be a text of 1 to {MAX_STOP_CHARACTERS} characters.")
    return tuple(texts)
