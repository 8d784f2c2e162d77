"""Answer prompts, many at a time. Prompts come from the same `encode` as training samples."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig

from mmtune.build import Parts
from mmtune.data.collate import collate_prompts
from mmtune.data.encode import control_ids
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
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0


def stop_ids(parts: Parts) -> list[int]:
    """Return the ids that end an answer: the tokenizer's EOS and the template's stop tokens."""
    stops = [control_ids(text, parts.tokenizer) for text in parts.template.stop]
    assert all(len(ids) == 1 for ids in stops), "a stop text must be one token"
    return sorted({parts.tokenizer.eos_token_id, *(ids[0] for ids in stops)} - {None})


@torch.no_grad()
def generate_ids(
    parts: Parts, prompts: list[list[int]], image_embeds: list[torch.Tensor | None], decoding: Decoding
) -> list[list[int]]:
    """Return the ids of one answer a prompt, its stop token included where it came.

    Args:
        parts: the model.
        prompts: ids with expanded image slots.
        image_embeds: of each prompt float[n, tokens, hidden_size], or None without images.
        decoding: how tokens are chosen.
    """
    llm: Any = parts.model.llm
    model, pad = parts.model, parts.tokenizer.pad_token_id
    batch = {key: value.to(model.device) for key, value in collate_prompts(prompts, pad).items()}
    given = [embeds for embeds in image_embeds if embeds is not None]
    embeds = model.embed(batch["input_ids"], torch.cat(given) if given else None)
    mask, options = batch["attention_mask"], {}
    if has_prefix(llm):
        # `generate` passes over as many embeddings as the cache holds tokens, so there are as many more.
        num_virtual = num_virtual_tokens(llm)
        mask = torch.nn.functional.pad(mask, (num_virtual, 0), value=1)
        embeds = torch.nn.functional.pad(embeds, (0, 0, num_virtual, 0))
        options = {"past_key_values": prefix_cache(llm, len(prompts))}
    elif has_prompts(llm):
        embeds, mask = put_before_prompts(embeds, mask, virtual_embeds(llm, embeds.dtype))
    asked: Any = model.base_llm if has_prompts(llm) else llm
    output = asked.generate(
        inputs_embeds=embeds, attention_mask=mask, generation_config=_generation_config(parts, decoding), **options
    )
    stops = set(stop_ids(parts))
    return [_until_stop(row, stops) for row in output.tolist()]


def _generation_config(parts: Parts, decoding: Decoding) -> GenerationConfig:
    options: dict[str, Any] = {"do_sample": False}
    if decoding.temperature > 0:
        options = {
            "do_sample": True,
            "temperature": decoding.temperature,
            "top_p": decoding.top_p,
            "top_k": 0,
        }
    return GenerationConfig(
        max_new_tokens=decoding.max_new_tokens,
        eos_token_id=stop_ids(parts),
        pad_token_id=parts.tokenizer.pad_token_id,
        **options,
    )


def _until_stop(ids: list[int], stops: set[int]) -> list[int]:
    for position, token in enumerate(ids):
        if token in stops:
            return ids[: position + 1]
    return ids


def answer_text(parts: Parts, ids: list[int]) -> str:
    """Decode an answer without its stop token and without any control token."""
    stops = set(stop_ids(parts))
    kept = ids[:-1] if ids and ids[-1] in stops else ids
    return parts.tokenizer.decode(kept, skip_special_tokens=True).strip()


@torch.no_grad()
def embed_images(parts: Parts, pixel_values: torch.Tensor) -> torch.Tensor:
    """Map images float[N, 3, H, W] to embeddings float[N, tokens, hidden_size], without gradients."""
    return parts.model.encode_images(pixel_values)
