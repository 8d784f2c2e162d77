"""Asks a model single questions in batches, each with its images; what answers are worth is decided elsewhere."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

import torch
from PIL import Image

from mmtune.build import Parts
from mmtune.chat.exchange import question_message
from mmtune.chat.generate import Decoding, answer_text, context_length, embed_images, generate_ids
from mmtune.conversation import Conversation, ImageSlot, Message
from mmtune.errors import DataError

Shown = str | ImageSlot | None
"""An image that a model is asked about: a file, a slot, or None for one of one colour."""
T = TypeVar("T")


class Asker:
    """Answers single questions in batches of about equal length; each image is encoded once, each prompt asked once.

    Args:
        parts: the model.
        decoding: how answers are chosen.
        batch_size: prompts answered together.
        system: a system message before each question, or None.
    """

    def __init__(self, parts: Parts, decoding: Decoding, batch_size: int, system: str | None = None):
        self.parts, self.decoding, self.batch_size, self.system = parts, decoding, batch_size, system
        self.embeds: dict[Shown, torch.Tensor] = {}

    def ask(self, questions: list[str], images: list[tuple[Shown, ...]]) -> list[str]:
        """Return an answer to each question; an image of None is a blank one. Equal prompts get one answer."""
        asked = list(zip(questions, images, strict=True))
        distinct = list(dict.fromkeys(asked))
        answers = dict(zip(distinct, self._ask(distinct), strict=True))
        return [answers[pair] for pair in asked]

    def problem(self, question: str, images: tuple[Shown, ...]) -> str:
        """Return why a question cannot be asked, as "reason. mend."; empty where it can."""
        try:
            prompt = self._prompt(question, images)
        except DataError as error:
            return error.message
        limit, length, new = context_length(self.parts), len(prompt), self.decoding.max_new_tokens
        if limit is None or length + new <= limit:
            return ""
        return f"{length} tokens and {new} of an answer are more than the model's context of {limit}. Shorten them."

    def _ask(self, asked: list[tuple[str, tuple[Shown, ...]]]) -> list[str]:
        prompts = [self._prompt(text, shown) for text, shown in asked]
        texts = [""] * len(prompts)
        order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
        for batch in batches(order, self.batch_size):
            embeds = self._image_embeds([asked[number][1] for number in batch])
            ids = generate_ids(self.parts, [prompts[number] for number in batch], embeds, self.decoding)
            for number, answer in zip(batch, ids, strict=True):
                texts[number] = answer_text(self.parts, answer)
        return texts

    def _prompt(self, text: str, images: tuple[Shown, ...]) -> list[int]:
        return question_ids(self.parts, text, len(images), self.system)

    def _image_embeds(self, images: list[tuple[Shown, ...]]) -> list[torch.Tensor | None]:
        new = [path for path in dict.fromkeys(path for shown in images for path in shown) if path not in self.embeds]
        if new:
            pixels = torch.stack([self._open(path) for path in new])
            self.embeds.update(zip(new, embed_images(self.parts, pixels), strict=True))
        return [torch.stack([self.embeds[path] for path in shown]) if shown else None for shown in images]

    def see(self, images: Iterable[Shown]) -> dict[Shown, DataError]:
        """Encode images that will be asked about, and forget all others; return what is wrong with unreadable ones."""
        wanted = list(dict.fromkeys(images))
        self.embeds = {path: self.embeds[path] for path in wanted if path in self.embeds}
        pixels, wrong = {}, {}
        for path in wanted:
            if path not in self.embeds:
                try:
                    pixels[path] = self._open(path)
                except DataError as error:
                    wrong[path] = error
        for batch in batches(list(pixels), self.batch_size):
            embeds = embed_images(self.parts, torch.stack([pixels[path] for path in batch]))
            self.embeds.update(zip(batch, embeds, strict=True))
        return wrong

    def _open(self, path: Shown) -> torch.Tensor:
        transform = self.parts.transform
        assert transform is not None
        if path is not None:
            return transform.open(path)
        return transform(Image.new("RGB", (transform.image_size,) * 2, transform.padding_colour))


def question_ids(parts: Parts, text: str, num_images: int, system: str | None = None) -> list[int]:
    """Return the prompt of a question in a dialogue of its own, up to where its answer begins."""
    messages = [Message("system", (system,))] if system else []
    messages.append(question_message(text, ("image",) * num_images))
    return parts.encode(Conversation(tuple(messages)), add_generation_prompt=True).input_ids


def batches(items: list[T], size: int) -> Iterator[list[T]]:
    """Yield `size` items at a time, in their order."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
