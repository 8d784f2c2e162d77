"""Cross-entropy where a label is, and nowhere else."""

from typing import Any

import torch
from torch import nn
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
    chunk_size: int | None = None,
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
        chunk_size: positions a chunk; None fits them to `MAX_LOGITS`.
        label_smoothing_factor: share of the target that is spread evenly over the vocabulary (Szegedy et al. 2015,
            arXiv:1512.00567, section 7); 0: all of it is on the label.

    Returns:
        A scalar in fp32; 0 with a gradient where the batch holds no label.
    """
    targets = labels[:, 1:]
    supervised = targets != IGNORE_INDEX
    states, targets = hidden[:, :-1][supervised], targets[supervised]
    if not targets.numel():
        return head(states).sum().float()  # with the head, which must have a gradient on all ranks
    if chunk_size is None:
        chunk_size = max(1, MAX_LOGITS // head.out_features)
    pieces = list(zip(states.split(chunk_size), targets.split(chunk_size), strict=True))
    if len(pieces) == 1:
        total = _summed_loss(*pieces[0], head, label_smoothing_factor)
    else:
        losses = [
            checkpoint(_summed_loss, *piece, head, label_smoothing_factor, use_reentrant=False) for piece in pieces
        ]
        total = torch.stack(losses).sum()
    return total / (targets.numel() if num_supervised_tokens is None else num_supervised_tokens)


def _summed_loss(states: torch.Tensor, targets: torch.Tensor, head: nn.Module, smoothing: float) -> torch.Tensor:
    return F.cross_entropy(head(states).float(), targets, reduction="sum", label_smoothing=smoothing)
