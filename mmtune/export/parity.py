"""Whether an export answers as the run does: the same probes to both, their ids and logits compared."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from mmtune.build import Parts
from mmtune.chat.exchange import question_message
from mmtune.chat.generate import Decoding, embed_images, generate_ids
from mmtune.conversation import Conversation, Message
from mmtune.errors import CheckpointError
from mmtune.models.vlm import VisionLanguageModel

TEXT_QUESTIONS = (
    "What is the capital of France?",
    "Tell me about a cat, please.",
    "Name 3 colours.",
    "Who are you?",
    "Is the sea blue?",
    "What is a tree?",
    "Count: 1, 2, 3",
    "What do you eat?",
)
IMAGE_QUESTIONS = (("What is in this picture?", (48, 32)), ("Which colours do you see?", (30, 50)))
"""Questions and the size of the picture that each is about."""

MAX_NEW_TOKENS = 10
TOLERANCES = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 8e-2}
"""The largest difference of a logit that rounding explains, as a share of the largest logit."""


@dataclass(frozen=True)
class Probe:
    """One question and what the run says to it.

    Attributes:
        message: the user turn.
        image: shown before the question, or None. Not square, so that padding counts.
        prompt_ids: int[T] as the run reads it, `IMAGE_TOKEN_ID` at the slots.
        answer_ids: int[A] greedy, the stop token included where it came.
        logits: float32[A + 1, V] that predict each answer id and what follows.
    """

    message: Message
    image: Image.Image | None
    prompt_ids: list[int]
    answer_ids: list[int]
    logits: torch.Tensor

    @property
    def question(self) -> str:
        """What is asked, without the line end that follows an image."""
        return self.message.text.lstrip("\n")


@dataclass(frozen=True)
class Parity:
    """How far an export is from the run.

    Attributes:
        reader: what read the export.
        num_answers: probes asked.
        num_equal: probes whose greedy answer is the same.
        max_difference: the largest difference of a logit.
        mean_difference: the mean one.
        tolerance: the largest one that rounding explains.
    """

    reader: str
    num_answers: int
    num_equal: int
    max_difference: float
    mean_difference: float
    tolerance: float

    @property
    def holds(self) -> bool:
        """Whether rounding explains the difference."""
        return self.max_difference <= self.tolerance

    def __str__(self) -> str:
        """One line with the figures."""
        return (
            f"{self.num_equal} of {self.num_answers} greedy answers equal, logits differ by at most"
            f" {self.max_difference:.1e} (mean {self.mean_difference:.1e}, allowed {self.tolerance:.1e}),"
            f" read by {self.reader}"
        )


Reader = Callable[[Probe], torch.Tensor]
"""Returns the logits float32[A + 1, V] of a probe's answer, computed from the export."""


def probe_image(size: tuple[int, int], seed: int) -> Image.Image:
    """Return a picture of coloured blocks."""
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize(size, Image.Resampling.BICUBIC)


def make_probes(parts: Parts) -> list[Probe]:
    """Ask the run eight questions: about text, and for a model that sees, two of them about images."""
    asked: list[tuple[str, Image.Image | None]] = [(question, None) for question in TEXT_QUESTIONS]
    if parts.transform is not None:
        pictures = [(question, probe_image(size, seed)) for seed, (question, size) in enumerate(IMAGE_QUESTIONS)]
        asked = [*asked[: -len(pictures)], *pictures]
    return [_ask(parts, question, picture) for question, picture in asked]


@torch.inference_mode()
def _ask(parts: Parts, question: str, image: Image.Image | None) -> Probe:
    message = question_message(question, ("probe",) if image is not None else ())
    prompt = parts.encode(Conversation((message,)), add_generation_prompt=True).input_ids
    embeds = _image_embeds(parts, image)
    (answer,) = generate_ids(parts, [prompt], [embeds], Decoding(max_new_tokens=MAX_NEW_TOKENS))
    return Probe(message, image, prompt, answer, run_logits(parts, prompt, answer, embeds))


@torch.inference_mode()
def run_logits(parts: Parts, prompt: list[int], answer: list[int], embeds: torch.Tensor | None) -> torch.Tensor:
    """Return the run's logits float32[A + 1, V] along an answer.

    Args:
        parts: the run.
        prompt: int[T] ids with image slots.
        answer: int[A] ids.
        embeds: of the images float[n, tokens, hidden_size], or None.
    """
    llm: Any = parts.model.llm
    ids = torch.tensor([prompt + answer], device=parts.model.device)
    output = llm(inputs_embeds=parts.model.embed(ids, embeds), use_cache=False, logits_to_keep=len(answer) + 1)
    return output.logits[0].float().cpu()


def logits_of_parts(parts: Parts, probe: Probe) -> torch.Tensor:
    """Return the logits of other parts for a probe, image included."""
    return run_logits(parts, probe.prompt_ids, probe.answer_ids, _image_embeds(parts, probe.image))


def _image_embeds(parts: Parts, image: Image.Image | None) -> torch.Tensor | None:
    if image is None or parts.transform is None:
        return None
    return embed_images(parts, parts.transform(image)[None])


@torch.inference_mode()
def logits_of_llm(llm: Any, probe: Probe, image_embeds: torch.Tensor | None = None) -> torch.Tensor:
    """Return the logits of a causal language model of transformers for a probe.

    Args:
        llm: read back from an export.
        probe: of text, or with `image_embeds`.
        image_embeds: of the probe's image float[1, tokens, hidden_size], as the export sees it.
    """
    ids = torch.tensor([probe.prompt_ids + probe.answer_ids], device=llm.device)
    kept = len(probe.answer_ids) + 1
    if image_embeds is None:  # by ids, as its users ask it
        return llm(input_ids=ids, use_cache=False, logits_to_keep=kept).logits[0].float().cpu()
    embeds = VisionLanguageModel(llm).embed(ids, image_embeds)
    return llm(inputs_embeds=embeds, use_cache=False, logits_to_keep=kept).logits[0].float().cpu()


def compare_text(
    folder: Path,
    probes: list[Probe],
    llm: Any,
    read_ids: Callable[[Probe], list[int]],
    reader: str,
    dtype: torch.dtype,
) -> Parity:
    """Compare a language model read back from an export on the probes of text, their ids first.

    Args:
        folder: of the export, for messages.
        probes: what the run said; those with an image are left out.
        llm: read back, a causal language model of transformers.
        read_ids: what the export's tokenizer makes of a probe's prompt, int[T].
        reader: what reads the export.
        dtype: of the export's weights.

    Raises:
        CheckpointError: the tokenizer gives other ids.
    """

    def read(probe: Probe) -> torch.Tensor:
        require_same_ids(folder, probe, read_ids(probe), None, reader)
        return logits_of_llm(llm, probe)

    return compare([probe for probe in probes if probe.image is None], read, reader, dtype)


def compare(probes: list[Probe], read: Reader, reader: str, dtype: torch.dtype) -> Parity:
    """Compare an export with the run.

    Args:
        probes: what the run said; vocabularies may be longer in the export.
        read: asks the export.
        reader: what it asks it with, for the message.
        dtype: of the export's weights.
    """
    num_equal, largest, total, count, scale = 0, 0.0, 0.0, 0, 1e-6
    for probe in probes:
        found = read(probe)
        expected = probe.logits
        assert found.shape[0] == expected.shape[0]
        answered = found[: len(probe.answer_ids)].argmax(-1).tolist()
        num_equal += answered == probe.answer_ids
        difference = (found[:, : expected.shape[1]] - expected).abs()
        largest = max(largest, float(difference.nan_to_num(float("inf")).max()))
        total, count = total + float(difference.sum()), count + difference.numel()
        scale = max(scale, float(expected.abs().max()))
    return Parity(reader, len(probes), num_equal, largest, total / count, TOLERANCES[dtype] * scale)


def require_same_ids(folder: Path, probe: Probe, ids: list[int], image_id: int | None, reader: str) -> None:
    """Check that another tokenizer reads a prompt as the run does.

    Args:
        folder: of the export, for the message.
        probe: the prompt.
        ids: int[T] what the other tokenizer made of it.
        image_id: what stands at its image slots, or None.
        reader: what read it.

    Raises:
        CheckpointError: it does not.
    """
    expected = [image_id if token < 0 else token for token in probe.prompt_ids]
    if ids != expected:
        message = f"{reader} reads {probe.question!r} as {len(ids)} other ids than the run ({len(expected)})."
        raise CheckpointError(folder, f"{message} The export is kept, but must not be used.")
