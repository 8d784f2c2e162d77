"""Noise on text embeddings while training (NEFTune)."""

from collections.abc import Sequence

import torch


def add_noise(
    embeds: torch.Tensor,
    is_text: torch.Tensor,
    alpha: float,
    position_ids: torch.Tensor | None = None,
    sample_lengths: Sequence[int] | None = None,
) -> torch.Tensor:
    """Add uniform noise of magnitude alpha / sqrt(L * D) to text embeddings, with L the length of a token's own sample.

    Rows that hold several samples, or padding, so get the noise that each sample would get alone.

    Args:
        embeds: float[B, T, D].
        is_text: bool[B, T], False at image slots, which get no noise; they count in L.
        alpha: of NEFTune; 5 to 15 in the paper.
        position_ids: int64[B, T], from 0 in each sample, where rows hold several; padding has 0 everywhere.
        sample_lengths: tokens of each row without padding, where a row is a sample; None: all of them.

    Source: NEFTune (Jain et al. 2023, arXiv:2310.05914), algorithm 1.
    """
    lengths = _lengths_of_samples(embeds, position_ids, sample_lengths)
    magnitude = is_text * alpha / (lengths * embeds.shape[-1]).sqrt()
    noise = torch.empty_like(embeds, dtype=torch.float32).uniform_(-1, 1)
    return embeds + (noise * magnitude[..., None]).to(embeds.dtype)


def _lengths_of_samples(
    embeds: torch.Tensor, position_ids: torch.Tensor | None, sample_lengths: Sequence[int] | None
) -> torch.Tensor:
    """The length of the sample that each token is of, float32[B, T]."""
    num_rows, width = embeds.shape[:2]
    if position_ids is not None:
        starts = position_ids == 0
        starts[:, 0] = True  # a sample never goes on in another row
        numbers = starts.flatten().cumsum(0) - 1
        return numbers.bincount()[numbers].view(num_rows, width).float()
    lengths = [width] * num_rows if sample_lengths is None else list(sample_lengths)
    assert len(lengths) == num_rows, "rows of several samples come with position_ids"
    return torch.tensor(lengths, dtype=torch.float32, device=embeds.device)[:, None].expand(num_rows, width)
