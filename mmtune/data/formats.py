"""From a record of a data file to a `Conversation`: one function a format, and the table of them.

A format only says where roles, texts and images stand. The rules every dialogue must keep are in
`check_conversation`. Each function raises `ValueError` with the reason; `parse_record` adds the place.
"""

from collections.abc import Callable
from typing import Any

from mmtune.conversation import ROLES, Conversation, ImageSlot, Message
from mmtune.data.records import Record
from mmtune.errors import DataError
from mmtune.lookup import lookup

IMAGE_MARK = "<image>"
LLAVA_ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
}

Format = Callable[[dict[str, Any]], Conversation]


def llava(record: dict[str, Any]) -> Conversation:
    r"""LLaVA: `{"image": "a.jpg", "conversations": [{"from": "human", "value": "<image>\nWhat?"}, ...]}`.

    `image` is a path, a list of paths, or absent for text; `<image>` marks in the human turns say where each stands.
    """
    turns = _list_of(record, "conversations")
    images = _image_paths(record)
    messages = []
    for number, turn in enumerate(turns, 1):
        role, text = _turn(turn, number, "from", "value")
        if role not in LLAVA_ROLES:
            raise ValueError(f"turn {number} has the unknown role '{role}'. Roles are human, gpt and system.")
        messages.append((LLAVA_ROLES[role], text))
    return Conversation(_with_images(messages, images, "question"))


def caption(record: dict[str, Any]) -> Conversation:
    """Image and caption: `{"image": "a.jpg", "caption": "A cat."}`; the user turn is the image alone."""
    images = _image_paths(record)
    text = record.get("caption")
    if not images:
        raise ValueError("no 'image'. A caption record names its image.")
    if not isinstance(text, str):
        raise ValueError(f"'caption' must be a text (got {_kind(text)}).")
    slots = tuple(ImageSlot(path) for path in images)
    return Conversation((Message("user", slots), Message("assistant", (text,))))


def messages(record: dict[str, Any]) -> Conversation:
    r"""OpenAI messages: `{"messages": [{"role": "user", "content": "<image>\nWhat?"}, ...], "images": ["a.jpg"]}`.

    Images are named by `image` or `images` and placed by `<image>` marks in the user's texts.
    """
    turns = _list_of(record, "messages")
    images = _image_paths(record)
    parsed = []
    for number, turn in enumerate(turns, 1):
        role, text = _turn(turn, number, "role", "content")
        if role not in ROLES:
            raise ValueError(f"turn {number} has the unknown role '{role}'. Roles are {', '.join(ROLES)}.")
        parsed.append((role, text))
    return Conversation(_with_images(parsed, images, "user's text"))


FORMATS: dict[str, Format] = {"llava": llava, "caption": caption, "messages": messages}
FORMAT_KEYS = {"conversations": "llava", "messages": "messages", "caption": "caption"}
NEAR_KEYS = {
    "conversation": "conversations",
    "message": "messages",
    "captions": "caption",
    "dialogue": "conversations",
}


def detect_format(record: Record) -> str:
    """Return the name of the format that a record is in, from its keys.

    Raises:
        DataError: none of the known keys is there.
    """
    keys = record.value if isinstance(record.value, dict) else {}
    for key, name in FORMAT_KEYS.items():
        if key in keys:
            return name
    for wrong, right in NEAR_KEYS.items():
        if wrong in keys:
            raise DataError(record.place, f"key '{wrong}' is not known. Did you mean '{right}'? Rename it.")
    found = ", ".join(map(str, keys)) or _kind(record.value)
    raise DataError(record.place, f"no known format (got {found}). A record has one of: {', '.join(FORMAT_KEYS)}.")


def parse_record(record: Record, format_name: str | None = None) -> Conversation:
    """Return the checked conversation of one record.

    Args:
        record: the record and its place.
        format_name: a key of `FORMATS`; None detects it.

    Raises:
        DataError: the record breaks its format or a rule of `check_conversation`.
    """
    if not isinstance(record.value, dict):
        raise DataError(record.place, f"a record is a JSON object (got {_kind(record.value)}).")
    read = lookup(FORMATS, format_name or detect_format(record), "format")
    try:
        conversation = read(record.value)
        check_conversation(conversation)
    except ValueError as error:
        raise DataError(record.place, str(error)) from None
    return conversation


def check_conversation(conversation: Conversation) -> None:
    """Hold the rules every dialogue keeps: an optional system message, then user and assistant in turns.

    Two turns of one role are never merged, and an empty answer is never trained.

    Raises:
        ValueError: with the turn and the mend.
    """
    turns = conversation.messages
    start = 1 if turns and turns[0].role == "system" else 0
    if len(turns) - start < 2:
        raise ValueError("the dialogue needs at least one question and one answer.")
    for number, message in enumerate(turns[start:], start + 1):
        expected = "user" if (number - start) % 2 else "assistant"
        if message.role != expected:
            raise ValueError(
                f"turn {number} is the {message.role}'s, expected the {expected}'s. Turns alternate, user first."
            )
        if message.role == "assistant" and not message.text.strip():
            raise ValueError(f"turn {number}: the answer is empty. Give it a text, or drop the record.")
        if not _is_unicode(message.text):
            raise ValueError(
                f"turn {number} holds half of a surrogate pair (such as \\ud83d). Write the whole character."
            )
        if message.role == "user" and not message.content:
            raise ValueError(f"turn {number}: the question is empty. Give it a text or an image.")
    if turns[-1].role != "assistant":
        raise ValueError(f"the dialogue ends with the {turns[-1].role}'s turn. Its last turn must be an answer.")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _list_of(record: dict[str, Any], key: str) -> list[Any]:
    value = record.get(key)
    if value is None and key.rstrip("s") in record:
        raise ValueError(f"key '{key.rstrip('s')}' is not known. Did you mean '{key}'? Rename it.")
    if not isinstance(value, list):
        raise ValueError(f"'{key}' must be a list of turns (got {_kind(value)}).")
    return value


def _turn(turn: Any, number: int, role_key: str, text_key: str) -> tuple[str, str]:
    if not isinstance(turn, dict):
        raise ValueError(f"turn {number} must be an object with '{role_key}' and '{text_key}' (got {_kind(turn)}).")
    role, text = turn.get(role_key), turn.get(text_key)
    if not isinstance(role, str):
        raise ValueError(f"turn {number}: '{role_key}' must name the role (got {_kind(role)}).")
    if not isinstance(text, str):
        raise ValueError(f"turn {number}: '{text_key}' must be a text (got {_kind(text)}).")
    return role, text


def _image_paths(record: dict[str, Any]) -> list[str]:
    given = [record[key] for key in ("image", "images") if record.get(key) not in (None, "", [])]
    if not given:
        return []
    if len(given) > 1:
        raise ValueError("both 'image' and 'images' name images. Keep one of the two keys.")
    value = given[0]
    paths = [value] if isinstance(value, str) else value
    if not isinstance(paths, list) or not all(isinstance(path, str) and path for path in paths):
        raise ValueError(f"'image' must be a path or a list of paths (got {_kind(value)}).")
    return paths


def _with_images(turns: list[tuple[str, str]], images: list[str], where: str) -> tuple[Message, ...]:
    """Put each image at its mark. Marks count in user turns only: elsewhere they are text."""
    marks = sum(text.count(IMAGE_MARK) for role, text in turns if role == "user")
    if marks != len(images):
        num_images = f"{len(images)} image{'' if len(images) == 1 else 's'}"
        num_marks = f"{marks} '{IMAGE_MARK}' mark{'' if marks == 1 else 's'}"
        raise ValueError(f"{num_images} but {num_marks} in the {where}. Each image needs one mark.")
    queue = iter(images)
    return tuple(
        Message(role, _split_marks(text, queue) if role == "user" else (text,))  # type: ignore[arg-type]
        for role, text in turns
    )


def _split_marks(text: str, images: Any) -> tuple[str | ImageSlot, ...]:
    first, *rest = text.split(IMAGE_MARK)
    content: list[str | ImageSlot] = [first]
    for piece in rest:
        content += [ImageSlot(next(images)), piece]
    return tuple(part for part in content if part != "")


def _kind(value: Any) -> str:
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
