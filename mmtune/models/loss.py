"""Cross-entropy where a label is, and nowhere else."""

import math
from typing import Any

import torch
from torch import distributed, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mmtune.conversation import IGNORE_INDEX

MAX_LOGITS = 1 << 26
"""Logits held at a time: 64 Mi, which is 256 MiB in fp32."""


def answer_loss(
    hidden: torch.Tensor,
    labels: torch.Tensor,
    head: Any,
    num_supervised_tokens: torch.Tensor | int | None = None,
    num_chunks: int | None = None,
    label_smoothing_factor: float = 0.0,
) -> torch.Tensor:
    """Return the cross-entropy of the supervised tokens, computed at the positions that predict them.

    The hidden states are selected before the head, so logits exist only for supervised tokens: of 2,048 positions
    with 60 supervised tokens, InternLM2's 92,544 logits are made 60 times. More than `MAX_LOGITS` of them are made in
    chunks, and made again in the backward pass instead of being kept.

    Args:
        hidden: float[B, T, H], the last hidden states.
        labels: int64[B, T], `IGNORE_INDEX` where not supervised; position t is predicted from t - 1.
        head: from float[N, H] to logits float[N, V], with `out_features` V.
        num_supervised_tokens: what the sum is divided by: the supervised tokens of the whole optimizer step, over
            accumulation and ranks. None divides by those of this batch.
        num_chunks: calls of the head; None makes as few as `MAX_LOGITS` allows. See `agreed_chunks`.
        label_smoothing_factor: share of the target that is spread evenly over the vocabulary (Szegedy et al. 2015,
            arXiv:1512.00567, section 7); 0: all of it is on the label.

    Returns:
        A scalar in fp32; 0 with a gradient where the batch holds no label.
    """
    targets = labels[:, 1:]
    supervised = targets != IGNORE_INDEX
    states, targets = hidden[:, :-1][supervised], targets[supervised]
    if num_chunks is None:
        num_chunks = chunks_needed(targets.numel(), head)
    pieces = list(zip(states.tensor_split(num_chunks), targets.tensor_split(num_chunks), strict=True))
    if len(pieces) == 1:
        total = _summed_loss(*pieces[0], head, label_smoothing_factor)
    else:
        losses = [
            checkpoint(_summed_loss, *piece, head, label_smoothing_factor, use_reentrant=False) for piece in pieces
        ]
        total = torch.stack(losses).sum()
    return total / (max(targets.numel(), 1) if num_supervised_tokens is None else num_supervised_tokens)


def chunks_needed(num_tokens: int, head: Any) -> int:
    """Return the fewest chunks of supervised tokens whose logits are at most `MAX_LOGITS` each, one at least."""
    return max(1, math.ceil(num_tokens / max(1, MAX_LOGITS // head.out_features)))


def agreed_chunks(labels: torch.Tensor, head: Any) -> int:
    """Return the chunks that the process with most supervised tokens needs.

    Where the head lies in parts on several devices, each call of it fetches the parts, so that all processes must
    call it equally often; some of their chunks may be empty.

    Args:
        labels: int64[B, T] of this process.
        head: as for `answer_loss`.
    """
    number = torch.tensor(chunks_needed(int((labels[:, 1:] != IGNORE_INDEX).sum()), head), device=labels.device)
    distributed.all_reduce(number, distributed.ReduceOp.MAX)
    return int(number)


def _summed_loss(states: torch.Tensor, targets: torch.Tensor, head: nn.Module, smoothing: float) -> torch.Tensor:
    return F.cross_entropy(head(states).float(), targets, reduction="sum", label_smoothing=smoothing)
