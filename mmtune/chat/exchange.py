"""A question of a dialogue and what followed it, as values."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from mmtune.conversation import ImageSlot, Message
from mmtune.data.image_files import ImageSource


@dataclass
class Exchange:
    """A question and what followed it.

    Attributes:
        question: the user's turn.
        image_embeds: of its images, float[N, tokens, hidden_size]; None without images.
        said: answers as ids without the token that ended them, and results of tools between them.
    """

    question: Message
    image_embeds: torch.Tensor | None = None
    said: list[list[int] | Message] = field(default_factory=list)


def question_message(question: str, images: Sequence[ImageSource] = ()) -> Message:
    """Return the user turn of a question: each image on a line of its own before the text, as in LLaVA's data.

    Without a text it is the images alone, as in data of captions. Slots are kept as they are, with the bytes they hold.
    """
    content: list[str | ImageSlot] = []
    for number, image in enumerate(images):
        content += [_slot(image, number)] if number == 0 else ["\n", _slot(image, number)]
    if question.strip() or not images:
        content.append(f"\n{question}" if images else question)
    return Message("user", tuple(content))


def _slot(image: ImageSource, number: int) -> ImageSlot:
    if isinstance(image, ImageSlot):
        return image
    return ImageSlot(str(image) if isinstance(image, str | Path) else f"image {number + 1}")
