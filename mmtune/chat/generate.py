"""Answer prompts, many at a time. Prompts come from the same `encode` as training samples."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig
from transformers.generation import BaseStreamer

from mmtune.build import Parts
from mmtune.data.collate import collate_prompts
from mmtune.models.prompts import (
    has_prefix,
    has_prompts,
    num_virtual_tokens,
    prefix_cache,
    put_before_prompts,
    virtual_embeds,
)


@dataclass(frozen=True)
class Decoding:
    """How an answer is chosen.

    Attributes:
        max_new_tokens: the longest answer.
        temperature: 0 takes the likeliest token each time (greedy); above, tokens are drawn.
        top_p: when drawing, only from the likeliest tokens that together have this probability.
        top_k: when drawing, only from so many of the likeliest tokens; 0: from all.
        repetition_penalty: above 1, tokens that the answer has already are less likely (Keskar et al. 2019,
            arXiv:1909.05858).
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0


def context_length(parts: Parts) -> int | None:
    """Return how many tokens a model was made for, less the virtual ones before them; None where it does not say."""
    length = parts.model.config.get_text_config().to_dict().get("max_position_embeddings")
    if length is None or not has_prompts(parts.model.llm):
        return length
    return length - num_virtual_tokens(parts.model.llm)


class _TokenTeller(BaseStreamer):
    """What transformers hands new tokens to."""

    def __init__(self, tell: Callable[[int], None]):
        self.tell = tell

    def put(self, value: torch.Tensor) -> None:
        """Tell each token of int64[...]; of a prompt in embeddings there is none."""
        for token in value.flatten().tolist():
            self.tell(token)

    def end(self) -> None:
        """Nothing is left over."""


@torch.no_grad()
def generate_ids(
    parts: Parts,
    prompts: list[list[int]],
    image_embeds: list[torch.Tensor | None],
    decoding: Decoding,
    on_token: Callable[[int], None] | None = None,
) -> list[list[int]]:
    """Return the ids of one answer a prompt, its stop token included where it came.

    Args:
        parts: the model.
        prompts: ids with expanded image slots.
        image_embeds: of each prompt float[n, tokens, hidden_size], or None without images.
        decoding: how tokens are chosen.
        on_token: told each token of the answer as it comes, for one prompt alone.
    """
    assert on_token is None or len(prompts) == 1
    llm: Any = parts.model.llm
    model, pad = parts.model, parts.tokenizer.pad_token_id
    batch = {key: value.to(model.device) for key, value in collate_prompts(prompts, pad).items()}
    given = [embeds for embeds in image_embeds if embeds is not None]
    embeds = model.embed(batch["input_ids"], torch.cat(given) if given else None)
    mask = batch["attention_mask"]
    options: dict[str, Any] = {} if on_token is None else {"streamer": _TokenTeller(on_token)}
    if has_prefix(llm):
        # `generate` passes over as many embeddings as the cache holds tokens, so there are as many more.
        num_virtual = num_virtual_tokens(llm)
        mask = torch.nn.functional.pad(mask, (num_virtual, 0), value=1)
        embeds = torch.nn.functional.pad(embeds, (0, 0, num_virtual, 0))
        options["past_key_values"] = prefix_cache(llm, len(prompts))
    elif has_prompts(llm):
        embeds, mask = put_before_prompts(embeds, mask, virtual_embeds(llm, embeds.dtype))
    asked: Any = model.base_llm if has_prompts(llm) else llm
    output = asked.generate(
        inputs_embeds=embeds, attention_mask=mask, generation_config=_generation_config(parts, decoding), **options
    )
    return [_until_stop(row, parts.stop_ids) for row in output.tolist()]


def _generation_config(parts: Parts, decoding: Decoding) -> GenerationConfig:
    options: dict[str, Any] = {"do_sample": False}
    if decoding.temperature > 0:
        options = {
            "do_sample": True,
            "temperature": float(decoding.temperature),  # transformers refuses 1 and takes 1.0
            "top_p": float(decoding.top_p),
            "top_k": decoding.top_k,
        }
    return GenerationConfig(
        max_new_tokens=decoding.max_new_tokens,
        eos_token_id=sorted(parts.stop_ids),
        pad_token_id=parts.tokenizer.pad_token_id,
        repetition_penalty=decoding.repetition_penalty,
        **options,
    )


def _until_stop(ids: list[int], stops: frozenset[int]) -> list[int]:
    for position, token in enumerate(ids):
        if token in stops:
            return ids[: position + 1]
    return ids


def without_stop(parts: Parts, ids: list[int]) -> list[int]:
    """Return the ids of an answer without the token that ended it."""
    return ids[:-1] if ids and ids[-1] in parts.stop_ids else ids


def answer_text(parts: Parts, ids: list[int]) -> str:
    """Decode an answer without its stop token and without any control token."""
    kept = [token for token in without_stop(parts, ids) if token not in parts.mark_ids]
    return parts.tokenizer.decode(kept, skip_special_tokens=True).strip()


@torch.no_grad()
def embed_images(parts: Parts, pixel_values: torch.Tensor) -> torch.Tensor:
    """Map images float[N, 3, H, W] to embeddings float[N, tokens, hidden_size], without gradients."""
    return parts.model.encode_images(pixel_values)
