"""One dialogue with a model. Its history is kept as ids, so that each turn is read as training read it."""

from collections.abc import Sequence
from pathlib import Path

import torch

from mmtune.build import Parts, load_run
from mmtune.chat.generate import Decoding, answer_text, embed_images, generate_ids, stop_ids
from mmtune.conversation import ImageSlot, Message, Role
from mmtune.data.encode import closing_ids, prompt_ids
from mmtune.data.image_files import ImageSource
from mmtune.errors import ConfigError
from mmtune.run_folder import read_config
from mmtune.schema import trained_system


class ChatSession:
    """A dialogue that grows by one question and one answer at a time.

    Args:
        parts: the model, from `load_run` or `build_parts`.
        decoding: how answers are chosen.
        system: a system message, or None.
    """

    def __init__(self, parts: Parts, decoding: Decoding | None = None, system: str | None = None):
        self.parts, self.decoding, self.system = parts, decoding or Decoding(), system
        self.reset()

    @classmethod
    def from_run(
        cls,
        folder: Path | str,
        decoding: Decoding | None = None,
        *,
        system: str | None = None,
        llm: str | None = None,
        vision: str | None = None,
        device: torch.device | None = None,
    ) -> "ChatSession":
        """Open a session with the model of a run folder, as `mmtune chat` does.

        Args:
            folder: the run, or a checkpoint in it.
            decoding: how answers are chosen.
            system: a system message; None takes the one that the run's sources gave, an empty text none.
            llm: where the base language model is now, if it moved.
            vision: where the vision encoder is now, if it moved.
            device: None takes a GPU where there is one.

        Raises:
            CheckpointError: the run is incomplete, or a base model is not the one it was trained on.
        """
        parts = load_run(folder, llm=llm, vision=vision, device=device)
        system = trained_system(read_config(Path(folder))) if system is None else system or None
        return cls(parts, decoding, system)

    def reset(self) -> None:
        """Forget the dialogue."""
        self.ids: list[int] = []
        self.last_role: Role | None = None
        self.image_embeds: torch.Tensor | None = None
        if self.system is not None:
            self._add_prompt(Message("system", (self.system,)))

    def ask(self, question: str, images: Sequence[ImageSource] = ()) -> str:
        """Return the answer to a question, asked after what was said before.

        Args:
            question: plain text; special tokens that it spells are text.
            images: shown before the question: files, or images of Pillow.

        Raises:
            DataError: an image is missing or cannot be read.
            ConfigError: the model has no vision encoder, or the question is empty.
        """
        if isinstance(images, ImageSource):
            raise ConfigError("images", f"must be a list (got {type(images).__name__}). Write images=[IMAGE].")
        if not question.strip() and not images:
            raise ConfigError("question", "it is empty. Ask something.")
        embeds = self._embed(images) if images else None
        message = question_message(question, tuple(f"image {number}" for number, _ in enumerate(images, 1)))
        self._add_prompt(message)
        if embeds is not None:
            self.image_embeds = embeds if self.image_embeds is None else torch.cat([self.image_embeds, embeds])
        return self._answer()

    def _answer(self) -> str:
        """Let the model say its turn, keep it, and return it as text."""
        return answer_text(self.parts, self._answer_ids())

    def _answer_ids(self) -> list[int]:
        (new_ids,) = generate_ids(self.parts, [self.ids], [self.image_embeds], self.decoding)
        self._add_answer(new_ids)
        return new_ids

    def _embed(self, images: Sequence[ImageSource]) -> torch.Tensor:
        if self.parts.transform is None:
            raise ConfigError("image", "this model was trained on text alone and cannot see. Ask without an image.")
        pixels = torch.stack([self.parts.transform.open(image) for image in images])
        return embed_images(self.parts, pixels)

    def _add_prompt(self, message: Message) -> None:
        parts = self.parts
        self.ids += prompt_ids(message, parts.template, parts.tokenizer, parts.num_image_tokens, self.last_role)
        self.last_role = message.role

    def _add_answer(self, new_ids: list[int]) -> None:
        """Close the answer as training closes it, also where it was cut off or ended with EOS."""
        stops = set(stop_ids(self.parts))
        kept = new_ids[:-1] if new_ids and new_ids[-1] in stops else new_ids
        self.ids += kept + closing_ids(kept, self.parts.template, self.parts.tokenizer)
        self.last_role = "assistant"


def question_message(question: str, images: tuple[str, ...] = ()) -> Message:
    """Return the user turn of a question: each image on a line of its own before the text, as in LLaVA's data."""
    content: list[str | ImageSlot] = []
    for number, path in enumerate(images):
        content += [ImageSlot(path)] if number == 0 else ["\n", ImageSlot(path)]
    text = f"\n{question}" if images else question
    return Message("user", (*content, text))
