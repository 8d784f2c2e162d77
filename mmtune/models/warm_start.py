"""Start a projector near the words of its captions, without the language model.

A new projector tells the language model nothing, and every example that teaches it which word a shape stands for costs
a pass through that model. The link between shapes and words is cheap to find beforehand: the projector's first layer
learns, with a linear head that is thrown away, which words the caption of an image holds; its last layer then starts
as the map from those words to their embeddings. Pretraining goes on from there as usual.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from mmtune.models.projector import Projector

BATCH_SIZE = 32
LEARNING_RATE = 2e-3
MAX_SHARE = 0.5


def fit_to_words(
    projector: Projector,
    features: torch.Tensor,
    words: list[list[int]],
    embeddings: torch.Tensor,
    num_epochs: int,
    progress: Callable[[int, int], None],
) -> int:
    """Fit an `mlp2x_gelu` projector to the words of captions.

    An image holds a word if one of its tokens does (multiple-instance learning: log-sum-exp over tokens, Ilse et al.
    2018, arXiv:1802.04712, section 2), trained with cross-entropy against the words of its caption.

    Args:
        projector: of kind `mlp2x_gelu`; its statistics are set already.
        features: float[N, tokens, in_features] of N images.
        words: the token ids of each image's caption.
        embeddings: float[V, out_features], the language model's embedding table.
        num_epochs: passes over the images.
        progress: told the steps that are done and how many there are.

    Returns:
        How many words were fitted: those of at least two captions and of at most half of them.
    """
    vocabulary = informative_words(words)
    if not vocabulary:
        return 0
    targets = torch.zeros(len(words), len(vocabulary), device=features.device)
    for row, ids in enumerate(words):
        targets[row, [vocabulary[token] for token in set(ids) if token in vocabulary]] = 1
    layers: Any = projector.layers
    first, activation, last = layers
    head = nn.Linear(first.out_features, len(vocabulary)).to(features.device)
    inputs = projector.normalized(features)
    _fit(nn.Sequential(first, activation, head), inputs, targets, num_epochs, progress)
    with torch.no_grad():
        table = embeddings[torch.tensor(list(vocabulary), device=embeddings.device)].float()
        table = table - table.mean(0)
        last.weight.copy_(table.T @ (head.weight - head.weight.mean(0)))
        last.bias.zero_()
    return len(vocabulary)


def informative_words(words: list[list[int]]) -> dict[int, int]:
    """Number the tokens that tell captions apart: in at least two captions, and in at most half of them."""
    counts: dict[int, int] = {}
    for ids in words:
        for token in set(ids):
            counts[token] = counts.get(token, 0) + 1
    kept = sorted(token for token, count in counts.items() if 2 <= count <= MAX_SHARE * len(words))
    return {token: number for number, token in enumerate(kept)}


@torch.enable_grad()
def _fit(
    network: nn.Module,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    num_epochs: int,
    progress: Callable[[int, int], None],
) -> None:
    shares = targets / targets.sum(1, keepdim=True).clamp_min(1)
    num_steps = max(1, num_epochs * len(inputs) // BATCH_SIZE)
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=num_steps + 1)
    for step in range(num_steps):
        progress(step, num_steps)
        rows = torch.randint(len(inputs), (BATCH_SIZE,), device=inputs.device)
        logits = torch.logsumexp(network(inputs[rows]), dim=1)
        loss = -(shares[rows] * F.log_softmax(logits, dim=-1)).sum(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
