"""A question of a dialogue and what followed it, as values."""

from dataclasses import dataclass, field

import torch

from mmtune.conversation import ImageSlot, Message


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


def question_message(question: str, images: tuple[str, ...] = ()) -> Message:
    """Return the user turn of a question: each image on a line of its own before the text, as in LLaVA's data.

    Without a text it is the images alone, as in data of captions.
    """
    content: list[str | ImageSlot] = []
    for number, path in enumerate(images):
        content += [ImageSlot(path)] if number == 0 else ["\n", ImageSlot(path)]
    if question.strip() or not images:
        content.append(f"\n{question}" if images else question)
    return Message("user", tuple(content))
