"""OpenAI's `messages` as turns of ours. Images come as data URIs; where they stand is where chat puts them."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mmtune.conversation import ImageSlot, Message
from mmtune.data.dialogue import kind_of
from mmtune.lookup import nearest
from mmtune.serve.refusals import Refused
from mmtune.serve.uploads import UploadLimits, checked_upload

Role = Literal["system", "user", "assistant"]
ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
HARMLESS_KEYS = ("name", "refusal", "annotations", "reasoning_content", "id")
"""Keys of a message that change no answer, such as those of an answer that a client sends back."""


@dataclass(frozen=True)
class MessageLimits:
    """How much may be said in a request.

    Attributes:
        upload: of each image.
        max_images: of all messages together.
        max_characters: of all texts together; nothing longer fits into the context.
    """

    upload: UploadLimits = field(default_factory=UploadLimits)
    max_images: int = 64
    max_characters: int = 2**20


def read_messages(value: Any, limits: MessageLimits) -> tuple[Message, ...]:
    """Return the turns of a dialogue that ends with a question.

    Raises:
        Refused: it is no such dialogue, or beyond a limit.
        DataError: an image is none, or beyond a limit.
    """
    if not isinstance(value, list) or not value:
        raise Refused(400, "messages", f"must be a list with a message or more (got {_got(value)}).")
    _count_images(value, limits)
    turns = tuple(_message(each, f"messages[{number}]", limits) for number, each in enumerate(value))
    if sum(len(turn.text) for turn in turns) > limits.max_characters:
        message = f"more than {limits.max_characters:,} characters, which fit into no context here. Send fewer."
        raise Refused(400, "messages", message, "context_length_exceeded")
    _check_order(turns)
    return turns


def arranged(parts: list[str | ImageSlot]) -> tuple[str | ImageSlot, ...]:
    """Return the content of a question with a line for each part.

    Images before or behind all text stand before it, as `mmtune chat` and LLaVA's data have them, so that the model
    reads what it was trained on. An image between two texts stays there.

    Args:
        parts: texts and images in the order in which they were sent.
    """
    is_text = [isinstance(part, str) and bool(part.strip()) for part in parts]
    shown = [part for part, text in zip(parts, is_text, strict=True) if text or isinstance(part, ImageSlot)]
    if not any(isinstance(part, ImageSlot) for part in shown):
        return ("\n".join(part for part in parts if isinstance(part, str)),)
    kinds = "".join("t" if isinstance(part, str) else "i" for part in shown)
    if "i" not in kinds.strip("i"):
        shown.sort(key=lambda part: isinstance(part, str))
    content: list[str | ImageSlot] = []
    for part in shown:
        before = content[-1] if content else None
        if before is None:
            content.append(part)
        elif isinstance(before, str):
            content[-1] = f"{before}\n{part}" if isinstance(part, str) else f"{before}\n"
            content += [] if isinstance(part, str) else [part]
        else:
            content += [f"\n{part}"] if isinstance(part, str) else ["\n", part]
    return tuple(content)


def _count_images(messages: list[Any], limits: MessageLimits) -> None:
    """Refuse too many images before any is looked at."""
    contents = [
        each["content"] for each in messages if isinstance(each, dict) and isinstance(each.get("content"), list)
    ]
    parts = [part for content in contents for part in content if isinstance(part, dict)]
    count = sum(part.get("type") == "image_url" for part in parts)
    if count > limits.max_images:
        message = f"{count} images, and {limits.max_images} fit into the context. Send fewer."
        raise Refused(400, "messages", message, "context_length_exceeded")


def _message(value: Any, place: str, limits: MessageLimits) -> Message:
    if not isinstance(value, dict):
        raise Refused(400, place, f"must be an object with role and content (got {_got(value)}).")
    role = value.get("role")
    if role in ("tool", "function"):
        raise Refused(400, f"{place}.role", "tools are not served here: `mmtune chat --tools` runs them.")
    if not isinstance(role, str) or role not in ROLES:
        raise Refused(400, f"{place}.role", f"must be one of {', '.join(ROLES)} (got {_got(role)}).")
    for key, held in value.items():
        if key not in ("role", "content", *HARMLESS_KEYS) and held not in (None, [], {}):
            raise Refused(400, f"{place}.{key:.40}", f"is not served here.{nearest(key, ('role', 'content'))}")
    parts = _parts(value.get("content"), f"{place}.content", limits)
    slots = [part for part in parts if isinstance(part, ImageSlot)]
    if slots and role != "user":
        raise Refused(400, f"{place}.content", f"only a user's message may have images, and this is the {role}'s.")
    content = arranged(parts)
    if content == ("",):
        raise Refused(400, f"{place}.content", "it is empty. Give it a text.")
    return Message(ROLES[role], content)


def _parts(content: Any, place: str, limits: MessageLimits) -> list[str | ImageSlot]:
    if isinstance(content, str):
        return [content]
    if not isinstance(content, list):
        raise Refused(400, place, f"must be a text, or a list of parts (got {_got(content)}).")
    return [_part(part, f"{place}[{number}]", limits) for number, part in enumerate(content)]


def _part(part: Any, place: str, limits: MessageLimits) -> str | ImageSlot:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return part["text"]
    if kind == "image_url":
        url = part.get("image_url")
        url = url.get("url") if isinstance(url, Mapping) else url
        if isinstance(url, str):
            return checked_upload(data_of_uri(url, f"{place}.image_url"), f"{place}.image_url", limits.upload)
    mend = 'Send {"type": "text", "text": "..."} or {"type": "image_url", "image_url": {"url": "data:..."}}.'
    raise Refused(400, place, f"is no part of a message that is served here (got {_got(kind or part)}). {mend}")


def data_of_uri(url: str, place: str) -> bytes:
    """Return the bytes in a data URI. No other kind of URL is ever followed.

    Raises:
        Refused: it is another one, or not in base64.
    """
    mend = "Send the image itself: data:image/png;base64,..."
    head, comma, _ = url[:200].partition(",")
    if not head.lower().startswith("data:"):
        scheme = head.partition(":")[0] if ":" in head else "no"
        raise Refused(400, place, f"is no data URI ({scheme:.20} URL), and nothing is fetched from elsewhere. {mend}")
    if not comma or not head.lower().endswith(";base64"):
        raise Refused(400, place, f"is a data URI without base64. {mend}")
    try:
        return base64.b64decode("".join(url[len(head) + 1 :].split()), validate=True)
    except (binascii.Error, ValueError):
        raise Refused(400, place, f"its base64 is broken. {mend}") from None


def _check_order(turns: tuple[Message, ...]) -> None:
    """Hold that a dialogue is a system message or none, then user and assistant in turns, the user last."""
    start = 1 if turns[0].role == "system" else 0
    for number, turn in enumerate(turns[start:], start):
        expected = "user" if (number - start) % 2 == 0 else "assistant"
        if turn.role == expected:
            continue
        if turn.role == "system":
            raise Refused(400, f"messages[{number}].role", "there is one system message, and it stands first.")
        mend = "After an optional system message, user and assistant take turns."
        raise Refused(400, f"messages[{number}].role", f"is the {turn.role}'s, expected the {expected}'s. {mend}")
    if turns[-1].role != "user":
        raise Refused(
            400, "messages", f"the last one is the {turns[-1].role}'s. It must be the user's, to be answered."
        )


def _got(value: Any) -> str:
    """A wrong value, short."""
    return f'"{value:.40}"' if isinstance(value, str) else kind_of(value)
