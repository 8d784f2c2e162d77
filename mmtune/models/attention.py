"""Attention for rows of several samples, each blind to the others, without a square mask over the row.

Training joins the samples of a batch into one row without padding. Attention then runs sample by sample: by torch's
variable-length kernel (flash attention) on CUDA, by a causal block per sample elsewhere. Registered with transformers
under one name, so that any model which takes its attention from there has it; everything but such rows goes to
transformers' own `sdpa`.
"""

from collections.abc import Sequence
from inspect import signature
from typing import Any

import torch
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

BLOCKWISE = "mmtune_blockwise"
"""The name among transformers' attention implementations."""

MAX_VARLEN_HEAD_DIM = 256


def use_blockwise_attention(llm: PreTrainedModel) -> bool:
    """Let a model attend sample by sample where it can; return whether it does.

    A model can where transformers runs it with `sdpa` and its layers take their attention from the library's table.
    """
    if not llm._supports_attention_backend or llm.config._attn_implementation != "sdpa":
        return False
    llm.set_attn_implementation(BLOCKWISE)
    return True


def is_blockwise(llm: PreTrainedModel) -> bool:
    """Whether rows of several samples cost no square mask: by this file's attention, or by a flash attention's."""
    name = llm.config._attn_implementation or ""
    return name == BLOCKWISE or name.startswith("flash_attention")


def row_options(llm: PreTrainedModel, sample_lengths: Sequence[int], device: torch.device) -> dict[str, Any]:
    """Return what a decoder's `forward` is told of the samples in a row, in transformers' words.

    Args:
        llm: whose attention it is.
        sample_lengths: tokens of each sample; their sum is the length of the row.
        device: where the row is.

    Returns:
        `cu_seq_lens_q` and `_k` int32[S + 1], where samples start and end; `max_length_q` and `_k`. For attention that
        knows no such row nothing: `position_ids` tell it.
    """
    if not is_blockwise(llm):
        return {}
    ends = torch.tensor((0, *sample_lengths)).cumsum(0).to(device, torch.int32)
    longest = max(sample_lengths)
    options: dict[str, Any] = {
        "cu_seq_lens_q": ends,
        "cu_seq_lens_k": ends,
        "max_length_q": longest,
        "max_length_k": longest,
    }
    if llm.config._attn_implementation == BLOCKWISE:
        # A mask of four dimensions is taken as it is; without one, a square of the whole row would be built.
        options["attention_mask"] = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device)
    return options


def blockwise_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Attend within each sample of a row, causally; without `cu_seq_lens_q` as transformers' `sdpa`.

    The signature is that of transformers' attention functions.

    Args:
        module: the attention layer.
        query: float[1, heads, T, D].
        key: float[1, key-value heads, T, D].
        value: as `key`.
        attention_mask: not read where `cu_seq_lens_q` is given.
        dropout: of the attention weights.
        scaling: of the scores; None is 1 / sqrt(D).
        cu_seq_lens_q: int32[S + 1] where samples start and end in the row.
        max_length_q: tokens of the longest sample.
        sliding_window: how many tokens a token sees, itself included; None: all before it.
        others: what transformers' `sdpa` takes.

    Returns:
        float[1, T, heads, D], and no weights.
    """
    if cu_seq_lens_q is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **others
        )
    if _has_varlen_kernel(query) and not dropout:
        assert max_length_q is not None
        return _varlen(query, key, value, cu_seq_lens_q, max_length_q, scaling, sliding_window), None
    lengths = cu_seq_lens_q.diff().tolist()
    queries, keys, values = (tensor.split(lengths, dim=2) for tensor in (query, key, value))
    attended = [
        _causal(*sample, dropout, scaling, sliding_window) for sample in zip(queries, keys, values, strict=True)
    ]
    return torch.cat(attended, dim=2).transpose(1, 2), None


def _causal(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    dropout: float,
    scaling: float | None,
    sliding_window: int | None,
) -> torch.Tensor:
    """One sample: float[1, heads, t, D]."""
    mask, length = None, query.shape[2]
    if sliding_window is not None and length > sliding_window:
        mask = torch.ones(length, length, dtype=torch.bool, device=query.device).tril().triu(1 - sliding_window)
    return F.scaled_dot_product_attention(
        query, key, value, mask, dropout, is_causal=mask is None, scale=scaling, enable_gqa=True
    )


def _has_varlen_kernel(query: torch.Tensor) -> bool:
    if not query.is_cuda or query.dtype not in (torch.float16, torch.bfloat16):
        return False
    return query.shape[-1] <= MAX_VARLEN_HEAD_DIM and _varlen_attn() is not None


def _varlen_attn() -> Any:
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:  # before torch 2.10
        return None
    return varlen_attn


def _varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    ends: torch.Tensor,
    longest: int,
    scaling: float | None,
    sliding_window: int | None,
) -> torch.Tensor:
    """All samples by one kernel: float[1, T, heads, D]."""
    attend, queries_per_key = _varlen_attn(), query.shape[1] // key.shape[1]
    rows = [tensor[0].transpose(0, 1) for tensor in (query, key, value)]
    window = (-1 if sliding_window is None else sliding_window - 1, 0)
    grouped: dict[str, bool] = {}
    if queries_per_key > 1 and "enable_gqa" in signature(attend).parameters:
        grouped = {"enable_gqa": True}
    elif queries_per_key > 1:  # torch 2.11 and before: a key for each query
        rows[1:] = [row.repeat_interleave(queries_per_key, dim=1) for row in rows[1:]]
    attended = attend(*rows, ends, ends, longest, longest, scale=scaling, window_size=window, **grouped)
    return attended[None]


AttentionInterface.register(BLOCKWISE, blockwise_attention)
AttentionMaskInterface.register(BLOCKWISE, sdpa_mask)
