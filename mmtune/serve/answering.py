"""Answers a request in the worker's thread: the ids of chat, a seed of its own, stop texts, and when to give up."""

import secrets
from dataclasses import dataclass, replace
from typing import Literal

import torch

from mmtune.chat.generate import answer_text, context_length, embed_images, generate_ids
from mmtune.chat.stream import TextStream
from mmtune.conversation import Conversation, ImageSlot, Message
from mmtune.errors import ConfigError
from mmtune.serve.chat_messages import MessageLimits
from mmtune.serve.chat_request import ChatRequest
from mmtune.serve.job import Job
from mmtune.serve.refusals import Refused
from mmtune.serve.served_models import ServedModels
from mmtune.serve.stop_texts import StopFound, StopScanner
from mmtune.serve.uploads import UploadLimits

IMAGES_AT_ONCE = 8
DEFAULT_CONTEXT = 2**15
"""Of a model that does not say what it was made for."""
CHARACTERS_A_TOKEN = 32
"""More than text has anywhere; English has about 4."""


@dataclass(frozen=True)
class Begun:
    """The first piece of a job: the prompt was read, and the answer begins.

    Attributes:
        num_prompt_tokens: with those of images.
    """

    num_prompt_tokens: int


@dataclass(frozen=True)
class Ended:
    """What a job results in, behind the pieces of its answer.

    Attributes:
        num_answer_tokens: as the model made them, with the one that ended it.
        reason: `stop`: the model or a stop text ended it; `length`: `max_tokens` or the context did.
    """

    num_answer_tokens: int
    reason: Literal["stop", "length"]


class Answerer:
    """Answers requests, each as if it were alone: nothing of one reaches another.

    Args:
        models: what can answer.
        context: tokens that prompt and answer may have together; None takes what the model was made for.
    """

    def __init__(self, models: ServedModels, context: int | None = None):
        self.models = models
        self.context = context_length(models.parts) if context is None else context

    def message_limits(self, upload: UploadLimits) -> MessageLimits:
        """Return how much may be said, so that what cannot fit into the context is refused before it is looked at.

        Args:
            upload: of each image.
        """
        context, num_image_tokens = self.context or DEFAULT_CONTEXT, self.models.parts.num_image_tokens
        max_images = context // num_image_tokens if num_image_tokens else 1  # one is told that the model cannot see
        return MessageLimits(upload, max_images, CHARACTERS_A_TOKEN * context)

    def answer(self, request: ChatRequest, job: Job) -> Ended:
        """Tell a `Begun` and the answer in pieces of text, and return how it ended. The work of a job.

        Raises:
            Refused: the dialogue does not fit into the context, or memory is out.
            DataError: an image cannot be decoded, or a text has half a character.
            ConfigError: the model cannot see, or has no place for a system message.
            Cancelled: nobody wants the answer any more.
        """
        self.models[request.model].activate()
        ids, slots = self._prompt(request)
        try:
            embeds = self._see(slots, job)
            job.tell(Begun(len(ids)))
            return self._generate(request, ids, embeds, job)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            message = f"memory is out ({len(ids)} tokens before the answer). Ask in fewer words or images."
            raise Refused(400, "messages", message, "out_of_memory") from None

    def _prompt(self, request: ChatRequest) -> tuple[list[int], tuple[ImageSlot, ...]]:
        """Return the ids of a dialogue, the same as those of `mmtune chat`, and its images."""
        parts, messages = self.models.parts, request.messages
        system = self.models[request.model].system
        if system is not None and messages[0].role != "system":
            messages = (Message("system", (system,)), *messages)
        if messages[0].role == "system" and parts.template.system is None:
            raise ConfigError("messages", "this model's chat template has no place for a system message. Ask without.")
        conversation = Conversation(messages)
        if conversation.image_slots and parts.transform is None:
            raise ConfigError("messages", "this model was trained on text alone and cannot see. Ask without an image.")
        ids = parts.encode(conversation, "messages", add_generation_prompt=True).input_ids
        if self.context is not None and len(ids) >= self.context:
            message = f"{len(ids)} tokens with those of images, and the context has {self.context}. Send less."
            raise Refused(400, "messages", message, "context_length_exceeded")
        return ids, conversation.image_slots

    def _see(self, slots: tuple[ImageSlot, ...], job: Job) -> torch.Tensor | None:
        """Return what the model sees of images, float[N, tokens, hidden_size]; None without images."""
        transform, found = self.models.parts.transform, []
        for start in range(0, len(slots), IMAGES_AT_ONCE):
            job.check()
            assert transform is not None
            pixels = torch.stack([transform.open(slot) for slot in slots[start : start + IMAGES_AT_ONCE]])
            found.append(embed_images(self.models.parts, pixels))
        return torch.cat(found) if found else None

    def _generate(self, request: ChatRequest, ids: list[int], embeds: torch.Tensor | None, job: Job) -> Ended:
        parts, decoding, made = self.models.parts, request.decoding, 0
        if self.context is not None:
            decoding = replace(decoding, max_new_tokens=min(decoding.max_new_tokens, self.context - len(ids)))
        scanner = StopScanner(request.stop, job.tell)
        stream = TextStream(lambda answer: answer_text(parts, answer), scanner.add)

        def take(token: int) -> None:
            nonlocal made
            job.check()
            made += 1
            stream.add(token)

        torch.manual_seed(secrets.randbits(63) if request.seed is None else request.seed)
        try:
            (answer,) = generate_ids(parts, [ids], [embeds], decoding, take)
            stream.end()
        except StopFound:
            return Ended(made, "stop")
        scanner.end()
        return Ended(made, "stop" if answer and answer[-1] in parts.stop_ids else "length")
