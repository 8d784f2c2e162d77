"""The rules that every dialogue and document keeps, whatever format it came from, and words for wrong values."""

from typing import Any

from mmtune.conversation import Conversation, Document, Message


def check_conversation(conversation: Conversation) -> None:
    """Hold the rules every dialogue keeps: system message and tools, both optional, then user and assistant in turns.

    Behind an answer with calls of tools stand their result and the next answer. Two turns of one role are never
    merged, an empty answer is never trained, and some answer is.

    Raises:
        ValueError: with the turn and the mend.
    """
    turns = conversation.messages
    start = 0
    for role in ("system", "tools"):
        start += len(turns) > start and turns[start].role == role
    if len(turns) - start < 2:
        raise ValueError("the dialogue needs at least one question and one answer.")
    is_supervised = False
    for number, message in enumerate(turns, 1):
        _check_characters(message, number)
        if number > start:
            _check_turn(message, number, None if number == start + 1 else turns[number - 2])
            is_supervised |= message.role == "assistant" and message.supervised
    if turns[-1].role != "assistant":
        raise ValueError(f"the dialogue ends with the {turns[-1].role}'s turn. Its last turn must be an answer.")
    if not is_supervised:
        raise ValueError("no answer is trained: each has loss or weight 0. Train one, or drop the record.")


def _check_turn(message: Message, number: int, previous: Message | None) -> None:
    """Hold what a turn behind another must be; the first one has None before it."""
    if previous is None:
        expected = "user"
    elif previous.role != "assistant":
        expected = "assistant"
    else:
        expected = "result" if previous.calls else "user"
    if message.role != expected:
        if expected == "result":
            raise ValueError(f"turn {number} is the {message.role}'s, expected the result of the call before it.")
        if message.role == "result":
            raise ValueError(f"turn {number} is a result, and the turn before calls no tool. Add the call.")
        raise ValueError(
            f"turn {number} is the {message.role}'s, expected the {expected}'s. Turns alternate, user first."
        )
    if expected == "assistant":
        if not message.text.strip() and not message.calls:
            raise ValueError(f"turn {number}: the answer is empty. Give it a text, or drop the record.")
    elif expected == "user" and not message.content:
        raise ValueError(f"turn {number}: the question is empty. Give it a text or an image.")


def check_document(document: Document) -> None:
    """Hold the rules of a document: it has a text, in whole characters.

    Raises:
        ValueError: with the mend.
    """
    if not document.text.strip():
        raise ValueError("the text is empty. Give it one, or drop the record.")
    if problem := _broken_characters(document.text):
        raise ValueError(f"the text {problem}")


def _check_characters(message: Message, number: int) -> None:
    for part in message.content:
        if isinstance(part, str) and (problem := _broken_characters(part)):
            raise ValueError(f"turn {number} {problem}")


def _broken_characters(text: str) -> str:
    """What of a text no tokenizer takes, as the end of a sentence; empty where all is well."""
    if "\0" in text:
        return "holds a NUL character (\\u0000). Remove it."
    return half_character(text)


def half_character(text: str) -> str:
    """Return what is wrong with a text that holds half a character, as the end of a sentence; empty for others."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return "holds half of a surrogate pair (such as \\ud83d). Write the whole character."
    return ""


def kind_of(value: Any) -> str:
    """What a value of a record is, in words: `a text`, `a list`, `nothing`."""
    if value is None:
        return "nothing"
    names = {
        str: "a text",
        bool: "true or false",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(value), type(value).__name__)


def text_of(record: dict[str, Any], key: str) -> str:
    """Return a text that a record must have.

    Raises:
        ValueError: it is missing or something else.
    """
    value = record.get(key)
    if isinstance(value, str):
        return value
    if value is None:
        raise ValueError(f"'{key}' is missing or empty. Give it a text, or name its column.")
    raise ValueError(f"'{key}' must be a text (got {kind_of(value)}).")


def optional_text(record: dict[str, Any], key: str) -> str:
    """Return a text that a record may have, or an empty one.

    Raises:
        ValueError: it is something else than a text.
    """
    return "" if record.get(key) is None else text_of(record, key)
