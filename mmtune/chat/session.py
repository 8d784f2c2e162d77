"""One dialogue with a model. What the model said is kept as ids, so that each turn is read as training read it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from mmtune.build import Parts, load_run
from mmtune.chat.exchange import Exchange, question_message
from mmtune.chat.generate import (
    Decoding,
    answer_text,
    context_length,
    embed_images,
    generate_ids,
    without_stop,
)
from mmtune.chat.stream import TextStream
from mmtune.conversation import Message
from mmtune.data.encode import closing_ids, prompt_ids
from mmtune.data.image_files import ImageSource
from mmtune.errors import ConfigError, MMTuneError, ModelError
from mmtune.run_folder import read_system

Tell = Callable[[str], None]


class ChatSession:
    """A dialogue that grows by one question and one answer at a time.

    Where it grows beyond the context, the model reads no more of the oldest exchanges, whole ones with their images,
    as few as make room; the system message stays. An answer is kept `max_new_tokens` of room, at most a quarter.

    Args:
        parts: the model, from `load_run` or `build_parts`.
        decoding: how answers are chosen.
        system: a system message, or None.
        context: tokens that prompt and answer may have together; None takes what the model was made for.

    Attributes:
        exchanges: all of them, the oldest first.
        num_unread: of the oldest exchanges, how many the model reads no more.
        ending: how the last answer ended: `stop`, `length` (`max_new_tokens` or the context) or `interrupted`.
    """

    def __init__(
        self,
        parts: Parts,
        decoding: Decoding | None = None,
        system: str | None = None,
        context: int | None = None,
    ):
        self.parts, self.decoding, self.system = parts, decoding or Decoding(), system
        self.context = context_length(parts) if context is None else context
        self.last_question: Message | None = None
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
        system = read_system(folder) if system is None else system or None
        return cls(parts, decoding, system)

    def reset(self) -> None:
        """Forget the dialogue. The last question is remembered for `retry`.

        Raises:
            ConfigError: the chat template has no place for a system message.
        """
        if self.system is not None and self.parts.template.system is None:
            raise ConfigError("system", "this model's chat template has no place for a system message. Ask without.")
        self.exchanges: list[Exchange] = []
        self.num_unread = 0
        self.ending = "stop"

    @property
    def opening(self) -> tuple[Message, ...]:
        """The turns before the first question."""
        return () if self.system is None else (Message("system", (self.system,)),)

    @property
    def ids(self) -> list[int]:
        """All that the model reads of the dialogue, as ids."""
        return self._ids_from(self.num_unread)

    @property
    def image_embeds(self) -> torch.Tensor | None:
        """Of the images in `ids`, float[N, tokens, hidden_size]; None without images."""
        found = [each.image_embeds for each in self.exchanges[self.num_unread :] if each.image_embeds is not None]
        return torch.cat(found) if found else None

    def ask(self, question: str, images: Sequence[ImageSource] = (), on_text: Tell | None = None) -> str:
        """Return the answer to a question, asked after what was said before. One that fails leaves all as it was.

        Args:
            question: plain text; special tokens that it spells are text.
            images: shown before the question: files, slots, or images of Pillow.
            on_text: told the answer in pieces as it comes.

        Raises:
            DataError: an image is missing or cannot be read.
            ConfigError: the model has no vision encoder, or the question is empty or too long.
            KeyboardInterrupt: Ctrl-C; what was said until then is kept.
        """
        if isinstance(images, ImageSource):
            raise ConfigError("images", f"must be a list (got {type(images).__name__}). Write images=[IMAGE].")
        if not question.strip() and not images:
            raise ConfigError("question", "it is empty. Ask something.")
        return self._ask(Exchange(question_message(question, images), self.embed(images)), self.exchanges, on_text)

    def retry(self, on_text: Tell | None = None) -> str:
        """Return a new answer to the last question, in place of the one it had; raises as `ask`."""
        message = self.last_question
        if message is None:
            raise ConfigError("/retry", "nothing was asked yet. Ask something.")
        before, embeds = self.exchanges, None
        if before and before[-1].question is message:
            before, embeds = before[:-1], before[-1].image_embeds
        if embeds is None:
            embeds = self.embed(message.image_slots)
        return self._ask(Exchange(message, embeds), before, on_text)

    def undo(self) -> Message:
        """Forget the last question with its answer, and return it.

        Raises:
            ConfigError: there is none.
        """
        if not self.exchanges:
            raise ConfigError("/undo", "there is no question to take back.")
        question = self.exchanges.pop().question
        self.last_question = self.exchanges[-1].question if self.exchanges else None
        self.num_unread = min(self.num_unread, max(len(self.exchanges) - 1, 0))
        return question

    def resume(self, system: str | None, exchanges: list[Exchange]) -> None:
        """Go on with a dialogue from elsewhere.

        Raises:
            ConfigError: the template has no place for its system message, or its last exchange exceeds the context.
        """
        before = self.system, self.exchanges, self.num_unread
        try:
            self.system = system
            self.reset()
            self._make_room(exchanges)
        except MMTuneError:
            self.system, self.exchanges, self.num_unread = before
            raise
        self.exchanges = exchanges
        if exchanges:
            self.last_question = exchanges[-1].question

    def embed(self, images: Sequence[ImageSource]) -> torch.Tensor | None:
        """Return what the model sees of images, float[N, tokens, hidden_size]; None without images.

        Raises:
            ConfigError: the model has no vision encoder.
            DataError: an image is missing or cannot be read.
        """
        if not images:
            return None
        if self.parts.transform is None:
            raise ConfigError("image", "this model was trained on text alone and cannot see. Ask without an image.")
        pixels = torch.stack([self.parts.transform.open(image) for image in images])
        return embed_images(self.parts, pixels)

    def split(self, answer: list[int]) -> tuple[list[int], list[list[int]]]:
        """Return what an answer says, and the calls of tools in it: none here."""
        return answer, []

    def text(self, answer: list[int]) -> str:
        """Return what an answer says as text, without control tokens."""
        return answer_text(self.parts, self.split(answer)[0])

    def _ask(self, exchange: Exchange, before: list[Exchange], on_text: Tell | None) -> str:
        old = self.exchanges, self.num_unread
        self.exchanges = [*before, exchange]
        try:
            self._make_room(self.exchanges)
            self.last_question = exchange.question
            return self._answer(on_text)
        except BaseException as error:
            if not (isinstance(error, KeyboardInterrupt) and self._is_whole(exchange)):
                self.exchanges, self.num_unread = old
            raise

    def _is_whole(self, exchange: Exchange) -> bool:
        """Whether an exchange that was stopped ends with an answer: some text, and no call."""
        last = exchange.said[-1] if exchange.said else []
        return isinstance(last, list) and bool(last) and not self.split(last)[1]

    def _make_room(self, exchanges: list[Exchange]) -> None:
        """Set how many of the oldest exchanges are read no more."""
        self.num_unread = 0
        if self.context is None:
            return
        kept = min(self.decoding.max_new_tokens, self.context // 4)
        while (needed := len(self._ids_from(self.num_unread, exchanges))) > self.context - kept:
            if self.num_unread + 1 >= len(exchanges):
                left = f"{self.context - kept} fit ({self.context} less {kept} for the answer)"
                raise ConfigError("question", f"it takes {needed} tokens, and {left}. Ask in fewer words or images.")
            self.num_unread += 1

    def _ids_from(self, first: int, exchanges: list[Exchange] | None = None) -> list[int]:
        parts, previous = self.parts, None
        ids: list[int] = []
        turns: list[Message | list[int]] = [*self.opening]
        for exchange in (self.exchanges if exchanges is None else exchanges)[first:]:
            turns += [exchange.question, *exchange.said]
        for turn in turns:
            if isinstance(turn, Message):
                ids += prompt_ids(turn, parts.template, parts.tokenizer, parts.num_image_tokens, previous)
                previous = turn.role
            else:  # closed as training closes it, also where it was cut off or ended with EOS
                ids += turn + closing_ids(turn, parts.template, parts.tokenizer)
                previous = "assistant"
        return ids

    def _answer(self, on_text: Tell | None) -> str:
        """Let the model say its turn, keep it, and return it as text."""
        return self.text(self._answer_ids(on_text))

    def _answer_ids(self, on_text: Tell | None) -> list[int]:
        """Return the ids of the model's next turn as it made them."""
        ids, made = self.ids, []
        stream = None if on_text is None else TextStream(self.text, on_text)
        decoding = self.decoding
        if self.context is not None:
            if len(ids) >= self.context:
                message = f"the dialogue fills the context of {self.context} tokens. Begin anew with /reset."
                raise ConfigError("question", message)
            decoding = replace(decoding, max_new_tokens=min(decoding.max_new_tokens, self.context - len(ids)))

        def take(token: int) -> None:
            made.append(token)
            if stream is not None:
                stream.add(token)

        try:
            (answer,) = generate_ids(self.parts, [ids], [self.image_embeds], decoding, take)
        except KeyboardInterrupt:
            self.ending = "interrupted"
            self.exchanges[-1].said.append(without_stop(self.parts, made))
            raise
        except torch.OutOfMemoryError:
            message = f"memory is out ({len(ids)} tokens before the answer). Ask in fewer words or images, or /reset."
            raise ModelError("question", message) from None
        if stream is not None:
            stream.end()
        self.ending = "stop" if answer and answer[-1] in self.parts.stop_ids else "length"
        self.exchanges[-1].said.append(without_stop(self.parts, answer))
        return answer
