"""Virtual tokens in front of samples: prompt tuning, P-tuning and prefix tuning, in training and in answers.

PEFT makes the virtual tokens. Where they go is decided here: in front of each sample of a row, and behind the padding
of a prompt. PEFT's own forward pass knows rows of one sample alone, and its `generate` drops images.
"""

from collections.abc import Sequence
from typing import Any

import torch
from peft import PeftModel, PrefixTuningConfig
from torch import nn


def has_prompts(llm: nn.Module) -> bool:
    """Whether virtual tokens stand in front of what a model reads."""
    return isinstance(llm, PeftModel) and llm.active_peft_config.is_prompt_learning


def has_prefix(llm: nn.Module) -> bool:
    """Whether these are keys and values of each layer, without embeddings of their own."""
    return has_prompts(llm) and isinstance(llm.active_peft_config, PrefixTuningConfig)


def prompt_encoder(llm: Any) -> Any:
    """Return the module that makes the virtual tokens, with all that trains."""
    return llm.prompt_encoder[llm.active_adapter]


def num_virtual_tokens(llm: Any) -> int:
    """Return how many virtual tokens stand in front of a sample."""
    return llm.active_peft_config.num_virtual_tokens


def virtual_embeds(llm: Any, dtype: torch.dtype) -> torch.Tensor:
    """Return the virtual tokens float[P, hidden_size] of prompt tuning or P-tuning."""
    return llm.get_prompt(batch_size=1)[0].to(dtype)


def prefix_cache(llm: Any, batch_size: int) -> Any:
    """Return the keys and values of prefix tuning as a cache of transformers, for `batch_size` rows."""
    return llm.get_prompt(batch_size=batch_size)


@torch.no_grad()
def start_prefix(llm: Any) -> None:
    """Start the keys and values of a new prefix as those of tokens drawn from the vocabulary.

    Random numbers would drown what stands behind them. Source: Li & Liang 2021, arXiv:2101.00190, section 7.4. A prefix
    that is projected keeps PEFT's start.
    """
    base, config = llm.get_base_model(), llm.active_peft_config
    if config.prefix_projection or config.init_weights is not None:
        return
    embeddings = base.get_input_embeddings()
    ids = torch.randint(embeddings.num_embeddings, (1, config.num_virtual_tokens), device=embeddings.weight.device)
    cache = base.get_decoder()(input_ids=ids, use_cache=True).past_key_values
    pairs = [tensor[0].transpose(0, 1).flatten(1) for layer in cache.layers for tensor in (layer.keys, layer.values)]
    prompt_encoder(llm).embedding.weight.copy_(torch.cat(pairs, dim=1))


def put_before_samples(
    embeds: torch.Tensor, virtual: torch.Tensor, sample_lengths: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor, tuple[int, ...], torch.Tensor]:
    """Put virtual tokens in front of each sample.

    Args:
        embeds: float[1, T, H], a row of samples without padding; or float[B, T, H], one sample a row, padded on the
            right.
        virtual: float[P, H].
        sample_lengths: tokens of each sample; where there are B of them, each is a row.

    Returns:
        The longer rows, their positions int64[1, T'] or int64[B, T'], their sample lengths, and the places bool[T']
        of the tokens that are not virtual, the same in each row.
    """
    num_virtual, device = len(virtual), embeds.device
    if len(embeds) == len(sample_lengths):
        rows = torch.cat([virtual.expand(len(embeds), -1, -1), embeds], dim=1)
        positions = torch.arange(rows.shape[1], device=device).expand(len(rows), -1)
        lengths = [length + num_virtual for length in sample_lengths]
        return rows, positions, tuple(lengths), positions[0] >= num_virtual
    samples = embeds[0].split(list(sample_lengths))
    row = torch.cat([torch.cat([virtual, sample]) for sample in samples])[None]
    lengths = [length + num_virtual for length in sample_lengths]
    positions = torch.cat([torch.arange(length, device=device) for length in lengths])
    return row, positions[None], tuple(lengths), positions >= num_virtual


def put_before_prompts(
    embeds: torch.Tensor, attention_mask: torch.Tensor, virtual: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Put virtual tokens between the padding on the left and the prompt of each row.

    Args:
        embeds: float[B, T, H].
        attention_mask: int64[B, T], 0 at the padding.
        virtual: float[P, H].

    Returns:
        float[B, P + T, H] and int64[B, P + T].
    """
    starts = (attention_mask == 0).sum(1).tolist()
    rows = [torch.cat([row[:start], virtual, row[start:]]) for row, start in zip(embeds, starts, strict=True)]
    return torch.stack(rows), nn.functional.pad(attention_mask, (0, len(virtual)), value=1)
