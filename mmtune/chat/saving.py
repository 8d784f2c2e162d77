"""Dialogues in files: a record of the format `messages` that training reads, and that a session goes on from.

Beside the text of an answer stand its ids, since several sequences of tokens may spell one text. They count where they
still decode to that text, so that a file may be edited, or read by a model with another tokenizer.
"""

import base64
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from mmtune.chat.exchange import Exchange
from mmtune.chat.generate import answer_text
from mmtune.chat.session import ChatSession
from mmtune.conversation import Conversation, ImageSlot, Message, ToolCall
from mmtune.data.encode import answer_ids
from mmtune.data.formats import parse_record
from mmtune.data.formats_tools import tool_call
from mmtune.data.image_values import IMAGE_MARK
from mmtune.data.record import Record
from mmtune.data.records import read_records
from mmtune.durable import written_beside
from mmtune.errors import ConfigError, DataError

IDS_KEY = "token_ids"


def save_dialogue(session: ChatSession, path: Path) -> Path | None:
    """Write a dialogue into a JSON file, all of it, also what the model reads no more.

    Image paths are relative to the file where all images lie in its folder or below, else absolute.

    Args:
        session: the dialogue.
        path: of the file; one that is there is replaced if it is a saved dialogue.

    Returns:
        What training needs as `image_folder` where images lie outside the file's folder; else None.

    Raises:
        ConfigError: nothing was said yet, an answer is empty or a call of a tool broken, or the file is there and
            something else or cannot be written.
    """
    if not session.exchanges:
        raise ConfigError("/save", "nothing was said yet. Ask something.")
    if not all(session.text(turn) or session.split(turn)[1] for turn in _answers(session)):
        raise ConfigError("/save", "an answer is empty, which no record holds. /undo and /retry take one back.")
    if path.exists():
        _require_dialogue(path)
    folder = Path(os.path.abspath(path)).parent
    slots = [slot for exchange in session.exchanges for slot in exchange.question.image_slots if slot.data is None]
    holds_all = Path(os.path.commonpath([folder, *map(_absolute, slots)]))
    base = folder if holds_all == folder else None
    record: dict[str, Any] = {"messages": []}
    turns: list[Message | list[int]] = [*session.opening]
    for exchange in session.exchanges:
        turns += [exchange.question, *exchange.said]
    for turn in turns:
        if isinstance(turn, list):
            record["messages"].append(_answer_turn(session, turn))
        elif turn.role == "tools":
            record["tools"] = json.loads(turn.text)
        else:
            role = "tool" if turn.role == "result" else turn.role
            record["messages"].append({"role": role, "content": _content(turn, base)})
    try:
        with written_beside(path) as beside:
            beside.write_text(json.dumps([record], indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError("/save", f"{path}: cannot be written: {error.strerror}. Name another file.") from None
    return None if base else holds_all


def _answers(session: ChatSession) -> list[list[int]]:
    return [turn for exchange in session.exchanges for turn in exchange.said if isinstance(turn, list)]


def load_dialogue(session: ChatSession, path: Path) -> None:
    """Let a session go on with the dialogue of a file: a saved one, or any file of one record that training reads.

    Raises:
        DataError: the file or an image cannot be read, or it holds no dialogue or several.
        ConfigError: it does not fit the session.
    """
    records = read_records(path)
    record = next(records)  # a file without any is an error of its own
    if next(records, None) is not None:
        raise DataError(path, "holds several records. /load takes a file of one dialogue.")
    conversation = parse_record(record)
    if not isinstance(conversation, Conversation):
        raise DataError(record.place, "a text without turns. /load takes a dialogue.")
    opening, exchanges = _exchanges(session, conversation, record)
    system = next((message.text for message in opening if message.role == "system"), None)
    tools = [message.text for message in opening if message.role == "tools"]
    if tools != [message.text for message in session.opening if message.role == "tools"]:
        raise ConfigError("/load", f"{path} offers other tools than this chat. Start it with the same --tools.")
    session.resume(system, exchanges)


def _content(turn: Message, base: Path | None) -> str | list[dict[str, str]]:
    """The content of a turn: a text, or parts where there are images or a mark that would stand for one."""
    if turn.role != "user" or not (turn.image_slots or IMAGE_MARK in turn.text):
        return turn.text
    parts = []
    for part in turn.content:
        if isinstance(part, ImageSlot):
            parts.append({"type": "image", "image": _stored_path(part, base)})
        else:
            parts.append({"type": "text", "text": part})
    return parts


def _absolute(slot: ImageSlot) -> str:
    return os.path.abspath(os.path.expanduser(slot.path))


def _stored_path(slot: ImageSlot, base: Path | None) -> str:
    """The path of an image, relative to `base` where there is one; an image without a file as a data URI."""
    if slot.data is not None:
        return f"data:image;base64,{base64.b64encode(slot.data).decode()}"
    return _absolute(slot) if base is None else Path(_absolute(slot)).relative_to(base).as_posix()


def _answer_turn(session: ChatSession, ids: list[int]) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": "assistant", "content": session.text(ids)}
    if calls := _calls(session, ids):
        turn["content"] = turn["content"] or None
        functions = [{"name": call.name, "arguments": call.arguments} for call in calls]
        turn["tool_calls"] = [{"type": "function", "function": function} for function in functions]
    return turn | {IDS_KEY: ids}


def _calls(session: ChatSession, ids: list[int]) -> tuple[ToolCall, ...]:
    """The calls in an answer."""
    calls = []
    try:
        for number, call in enumerate(session.split(ids)[1], 1):
            value = json.loads(answer_text(session.parts, call))
            calls.append(tool_call(value["name"], value.get("arguments", value.get("parameters", {})), number))
        return tuple(calls)
    except (ValueError, KeyError, TypeError, AttributeError):
        message = "the model wrote a call that is broken, which no record holds. /undo takes its question back."
        raise ConfigError("/save", message) from None


def _exchanges(
    session: ChatSession, conversation: Conversation, record: Record
) -> tuple[list[Message], list[Exchange]]:
    """The turns before the first question, and the exchanges, of a record."""
    opening: list[Message] = []
    exchanges: list[Exchange] = []
    stored = [turn for turn in record.value.get("messages", []) if isinstance(turn, dict)]
    own_ids = iter([turn.get(IDS_KEY) for turn in stored if turn.get("role") == "assistant"])
    previous = ""
    for message in conversation.messages:
        if message.role == "user":
            slots = [_found(slot, record.path.parent) for slot in message.image_slots]
            waiting = iter(slots)
            content = tuple(part if isinstance(part, str) else next(waiting) for part in message.content)
            exchanges.append(Exchange(Message("user", content), session.embed(slots)))
        elif message.role == "assistant":
            exchanges[-1].said.append(_answer_of(session, message, next(own_ids, None), previous))
        elif message.role == "result":
            exchanges[-1].said.append(message)
        else:
            opening.append(message)
        previous = message.role
    return opening, exchanges


def _found(slot: ImageSlot, folder: Path) -> ImageSlot:
    return slot if slot.data is not None else ImageSlot(str(folder / Path(slot.path).expanduser()))


def _answer_of(session: ChatSession, message: Message, ids: Any, previous: str) -> list[int]:
    """The ids of an answer: those that the file holds where they say its text, else those of training."""
    parts = session.parts
    size = len(parts.tokenizer)
    if isinstance(ids, list) and all(isinstance(token, int) and 0 <= token < size for token in ids):
        with suppress(ConfigError):
            if session.text(ids) == message.text and _calls(session, ids) == message.calls:
                return ids
    return answer_ids(message, parts.template, parts.tokenizer, previous)


def _require_dialogue(path: Path) -> None:
    """Refuse to write over what is no saved dialogue."""
    try:
        (record,) = json.loads(path.read_text(encoding="utf-8"))
        is_saved = any(IDS_KEY in turn for turn in record["messages"])
    except (OSError, ValueError, KeyError, TypeError):
        is_saved = False
    if not is_saved:
        raise ConfigError("/save", f"{path} is there and is no saved dialogue. Name another file.")
