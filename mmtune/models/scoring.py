"""How well a model predicts the supervised tokens of a batch, token by token. Nothing is trained here."""

from typing import Any

import torch
from torch.nn import functional as F

from mmtune.conversation import IGNORE_INDEX
from mmtune.models.loss import MAX_LOGITS
from mmtune.models.vlm import VisionLanguageModel


@torch.no_grad()
def score_answers(model: VisionLanguageModel, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the loss float32[N] of each supervised token of a batch, and whether it is the likeliest one bool[N].

    Noise, smoothing and penalties of training have no part in it. Logits are made in chunks.

    Args:
        model: in eval mode.
        batch: as `VisionLanguageModel.forward` takes it, on the model's device.

    Returns:
        Both in the order of the samples and of their tokens.
    """
    image_embeds = None
    if "image_features" in batch:
        image_embeds = model.project(batch["image_features"])
    elif "pixel_values" in batch:
        image_embeds = model.encode_images(batch["pixel_values"])
    embeds = model.embed(batch["input_ids"], image_embeds)
    hidden = model.hidden_states(embeds, batch.get("position_ids"), batch.get("sample_lengths"))
    head: Any = model.base_llm.get_output_embeddings()
    return score_states(hidden, batch["labels"], head)


@torch.no_grad()
def score_states(
    hidden: torch.Tensor, labels: torch.Tensor, head: Any, chunk_size: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what `score_answers` does of hidden states.

    Args:
        hidden: float[B, T, H], the last hidden states.
        labels: int64[B, T], `IGNORE_INDEX` where not supervised; position t is predicted from t - 1.
        head: from float[N, H] to logits float[N, V], with `out_features` V.
        chunk_size: positions a chunk; None fits them to `MAX_LOGITS`.
    """
    targets = labels[:, 1:]
    supervised = targets != IGNORE_INDEX
    states, targets = hidden[:, :-1][supervised], targets[supervised]
    size = max(1, MAX_LOGITS // head.out_features) if chunk_size is None else chunk_size
    losses, hits = [], []
    for some, wanted in zip(states.split(size), targets.split(size), strict=True):
        logits = head(some).float()
        losses.append(F.cross_entropy(logits, wanted, reduction="none"))
        hits.append(logits.argmax(-1) == wanted)
    return torch.cat(losses), torch.cat(hits)
