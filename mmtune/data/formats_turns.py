"""The formats that list their turns: LLaVA, ShareGPT, OpenAI messages. Each function raises `ValueError`."""

from typing import Any

from mmtune.conversation import Conversation, ImageSlot, Message
from mmtune.data.dialogue import kind_of, optional_text
from mmtune.data.formats_tools import (
    CALL_ROLES,
    RESULT_ROLES,
    add_result,
    calls_of_text,
    calls_of_turn,
    result_text,
    with_tools,
)
from mmtune.data.image_values import ImageQueue, image_slot, images_of

LLAVA_ROLES = {
    "human": "user",
    "gpt": "assistant",
    "system": "system",
    "user": "user",
    "assistant": "assistant",
}
MESSAGES_ROLES = {"system": "system", "user": "user", "assistant": "assistant", "developer": "system"}
SUPERVISED_KEYS = ("loss", "weight")


def llava(record: dict[str, Any]) -> Conversation:
    r"""LLaVA: `{"image": "a.jpg", "conversations": [{"from": "human", "value": "<image>\nWhat?"}, ...]}`.

    `image` is an image, a list of them, or absent for text; `<image>` marks in the human turns say where each stands.
    """
    queue = ImageQueue(images_of(record))
    turns = _turns(record, "conversations")
    messages = _messages(turns, LLAVA_ROLES, "human, gpt and system", ("from", "value"), queue)
    queue.check("question")
    return Conversation(messages)


def sharegpt(record: dict[str, Any]) -> Conversation:
    r"""ShareGPT as LLaMA-Factory writes it: LLaVA's turns, or `role` and `content`; `system` and `images` beside them.

    `{"conversations": [{"role": "user", "content": "<image>What?"}, ...], "system": "Be kind.", "images": ["a.jpg"]}`.
    `tools` may stand beside them; `function_call` turns hold calls as JSON, `observation` turns what they returned.
    """
    queue = ImageQueue(images_of(record))
    turns = _turns(record, "conversations")
    has_roles = isinstance(turns[0], dict) and "role" in turns[0] if turns else False
    keys = ("role", "content") if has_roles else ("from", "value")
    messages = _messages(turns, LLAVA_ROLES, "human, gpt and system, or user and assistant", keys, queue)
    queue.check("question")
    if system := optional_text(record, "system"):
        if messages and messages[0].role == "system":
            raise ValueError("has 'system' and a system turn. Keep one of the two.")
        messages = (Message("system", (system,)), *messages)
    return Conversation(with_tools(messages, record))


def messages(record: dict[str, Any]) -> Conversation:
    r"""OpenAI messages: `{"messages": [{"role": "user", "content": "<image>\nWhat?"}, ...], "images": ["a.jpg"]}`.

    A content is a text, in which `<image>` marks of the user place `images`, or a list of parts: `text`, `image_url`,
    and `image`, which takes the next of `images` where it names none. An answer with `loss` or `weight` 0 is not
    trained. `tools` may stand beside them, `tool_calls` in answers; `tool` turns hold what they returned.
    """
    queue = ImageQueue(images_of(record))
    turns = _turns(record, "messages")
    found = _messages(turns, MESSAGES_ROLES, "system, user, assistant", ("role", "content"), queue)
    queue.check("user's text")
    return Conversation(with_tools(found, record))


def _turns(record: dict[str, Any], key: str) -> list[Any]:
    value = record.get(key)
    if value is None and key.rstrip("s") in record:
        raise ValueError(f"key '{key.rstrip('s')}' is not known. Did you mean '{key}'? Rename it.")
    if not isinstance(value, list):
        raise ValueError(f"'{key}' must be a list of turns (got {kind_of(value)}).")
    return value


def _messages(
    turns: list[Any], roles: dict[str, str], known: str, keys: tuple[str, str], queue: ImageQueue
) -> tuple[Message, ...]:
    """Return the message of each turn; `known` names the roles for the error, `keys` where role and content stand."""
    role_key, content_key = keys
    found: list[Message] = []
    for number, turn in enumerate(turns, 1):
        if not isinstance(turn, dict):
            raise ValueError(
                f"turn {number} must be an object with '{role_key}' and '{content_key}' (got {kind_of(turn)})."
            )
        name, content = turn.get(role_key), turn.get(content_key)
        if name in RESULT_ROLES:
            add_result(found, result_text(content, number))
            continue
        role = "assistant" if name in CALL_ROLES else roles.get(name) if isinstance(name, str) else None
        if role is None:
            raise ValueError(_unknown_role(name, number, role_key, known))
        supervised = len(turn) == 2 or _is_supervised(turn, role, number)
        calls = calls_of_text(content, number) if name in CALL_ROLES else calls_of_turn(turn, number)
        if calls and role != "assistant":
            raise ValueError(f"turn {number}: the {role}'s turn calls a tool. Only answers do.")
        parts: tuple[str | ImageSlot, ...]
        if calls and (name in CALL_ROLES or content is None or content == ""):
            parts = ()
        elif isinstance(content, str):
            parts = queue.split_marks(content) if role == "user" else (content,)
        elif isinstance(content, list) and content_key == "content":
            parts = _parts(content, role, number, queue)
        else:
            raise ValueError(f"turn {number}: '{content_key}' must be a text (got {kind_of(content)}).")
        found.append(Message(role, parts, supervised, calls))  # type: ignore[arg-type]
    return tuple(found)


def _unknown_role(name: Any, number: int, role_key: str, known: str) -> str:
    if not isinstance(name, str):
        return f"turn {number}: '{role_key}' must name the role (got {kind_of(name)})."
    return f"turn {number} has the unknown role '{name:.40}'. Roles are {known}."


def _is_supervised(turn: dict[str, Any], role: str, number: int) -> bool:
    """Whether a turn is trained, as its `loss` or `weight` says."""
    supervised = True
    for key in SUPERVISED_KEYS:
        value = turn.get(key)
        if value is None:
            continue
        if value not in (0, 1):
            raise ValueError(f"turn {number}: '{key}' is true or false, 1 or 0 (got {value!r:.40}).")
        if value and role != "assistant":
            raise ValueError(f"turn {number}: '{key}' is set on the {role}'s turn. Only answers are trained.")
        supervised &= bool(value)
    return supervised or role != "assistant"


def _parts(parts: list[Any], role: str, number: int, queue: ImageQueue) -> tuple[str | ImageSlot, ...]:
    """The content of a turn from its parts. A text part is text only: a mark in it is not an image."""
    content: list[str | ImageSlot] = []
    for index, part in enumerate(parts, 1):
        if not isinstance(part, dict):
            raise ValueError(f"turn {number}: part {index} must be an object with 'type' (got {kind_of(part)}).")
        kind = part.get("type")
        if kind == "text":
            text = part.get("text")
            if not isinstance(text, str):
                raise ValueError(f"turn {number}: part {index} has no 'text' (got {kind_of(text)}).")
            if content and isinstance(content[-1], str):
                content[-1] += text  # one text is tokenized as one
            elif text:
                content.append(text)
        elif kind not in ("image", "image_url"):
            raise ValueError(f"turn {number}: part {index} is {kind!r:.40}. Parts are text, image and image_url.")
        elif role != "user":
            raise ValueError(f"turn {number}: an image in the {role}'s turn. Images stand in user turns only.")
        else:
            content.append(_part_image(part, queue))
    return tuple(content) or ("",) * (role != "user")


def _part_image(part: dict[str, Any], queue: ImageQueue) -> ImageSlot:
    value = next((part[key] for key in ("image_url", "image", "url", "path") if part.get(key) is not None), None)
    if isinstance(value, dict) and value.get("url") is not None:
        value = value["url"]
    if value is None:
        return queue.take()
    queue.slots.insert(queue.num_taken, image_slot(value, queue.num_taken + 1))
    return queue.take()
