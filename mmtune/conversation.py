"""The values that data and models exchange: messages, conversations, documents, samples.

No reading of files, no tokenizing: those are `data/formats.py` and `data/encode.py`.
"""

from dataclasses import dataclass, field
from typing import Literal

IMAGE_TOKEN_ID = -200
"""Stands for one image token in `input_ids`. Outside every vocabulary, so that no text can spell it."""

IGNORE_INDEX = -100
"""The label of a position that is not supervised (PyTorch's default `ignore_index`)."""

Role = Literal["system", "tools", "user", "assistant", "result"]
ROLES: tuple[str, ...] = ("system", "tools", "user", "assistant", "result")


@dataclass(frozen=True)
class ImageSlot:
    """The place of one image inside a message, and where the image is.

    Attributes:
        path: the image file, as the record names it (relative to the image folder); a container such as a tar file
            with `size`; a name for messages with `data`.
        offset: where the image begins in the file, in bytes.
        size: its bytes; None: the whole file.
        data: the encoded image itself (PNG, JPEG, ...), where the record holds it.
    """

    path: str
    offset: int = 0
    size: int | None = None
    data: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class ToolCall:
    """A call of a tool by the assistant.

    Attributes:
        name: of the tool.
        arguments: a JSON object as text, by the tool's own names.
    """

    name: str
    arguments: str


@dataclass(frozen=True)
class Message:
    """What one side says in one turn.

    Attributes:
        role: `system`, `user` or `assistant`; `tools`, a JSON list of those on offer; `result`, what a tool returned.
        content: texts and image slots in order. A text is always text: one that spells `<image>` or
            `<|im_end|>` is neither an image nor a control token.
        supervised: whether an answer is trained; no other role ever is.
        calls: of tools, with which an answer ends.
    """

    role: Role
    content: tuple[str | ImageSlot, ...]
    supervised: bool = True
    calls: tuple[ToolCall, ...] = ()

    @property
    def text(self) -> str:
        """The message without its images."""
        return "".join(part for part in self.content if isinstance(part, str))

    @property
    def image_slots(self) -> tuple[ImageSlot, ...]:
        """Its images, in order."""
        return tuple(part for part in self.content if isinstance(part, ImageSlot))

    @property
    def images(self) -> tuple[str, ...]:
        """The paths of its images, in order."""
        return tuple(slot.path for slot in self.image_slots)


@dataclass(frozen=True)
class Conversation:
    """One dialogue: a system message and tools, both optional, then user and assistant in turns.

    Behind an answer with calls stands their result, then the assistant again.
    """

    messages: tuple[Message, ...]

    @property
    def image_slots(self) -> tuple[ImageSlot, ...]:
        """All images, in the order of their slots."""
        return tuple(slot for message in self.messages for slot in message.image_slots)

    @property
    def images(self) -> tuple[str, ...]:
        """The paths of all images, in the order of their slots."""
        return tuple(slot.path for slot in self.image_slots)


@dataclass(frozen=True)
class Document:
    """A text without turns, all of which is trained (incremental pretraining)."""

    text: str


@dataclass(frozen=True)
class Sample:
    """One encoded conversation.

    Attributes:
        input_ids: int[T] token ids; each image stands as `num_image_tokens` times `IMAGE_TOKEN_ID`.
        labels: int[T] the same ids where supervised, `IGNORE_INDEX` elsewhere; `labels[0]` never is supervised,
            since no position predicts it.
        image_slots: the images whose slots are in `input_ids`, in order.
        place: `file:line` of the record, for messages.
        num_cut_tokens: how many tokens `max_length` cut off.
    """

    input_ids: list[int]
    labels: list[int]
    image_slots: tuple[ImageSlot, ...] = ()
    place: str = ""
    num_cut_tokens: int = field(default=0, compare=False)

    @property
    def images(self) -> tuple[str, ...]:
        """The paths of its images, in order."""
        return tuple(slot.path for slot in self.image_slots)

    @property
    def num_supervised_tokens(self) -> int:
        """How many positions carry a label."""
        return len(self.labels) - self.labels.count(IGNORE_INDEX)
