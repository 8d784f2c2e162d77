"""Projectors: from vision features to the language model's embeddings. A new one is a line of `PROJECTORS`."""

from collections.abc import Callable

import torch
from torch import nn

from mmtune.lookup import lookup


class Projector(nn.Module):
    """Maps every vision token to the width of the language model.

    Source: LLaVA-1.5 (Liu et al. 2023, arXiv:2310.03744) for `mlp2x_gelu`.

    Args:
        kind: a key of `PROJECTORS`.
        in_features: width of a vision token; 1024 for CLIP ViT-L/14.
        out_features: width of the language model; 2048 for InternLM2-1.8B.
        standardize: bring each input channel to mean 0 and deviation 1 first, with statistics from
            `fit_standardization` that are saved with the weights. For encoders whose channels differ in scale.
    """

    def __init__(self, kind: str, in_features: int, out_features: int, standardize: bool = False):
        super().__init__()
        self.feature_mean: torch.Tensor
        self.feature_std: torch.Tensor
        self.in_features, self.out_features, self.standardize = in_features, out_features, standardize
        self.layers = lookup(PROJECTORS, kind, "model.projector.kind")(in_features, out_features)
        if standardize:
            self.register_buffer("feature_mean", torch.zeros(in_features))
            self.register_buffer("feature_std", torch.ones(in_features))

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of its weights."""
        return next(self.parameters()).dtype

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map features float[..., in_features] of any dtype to float[..., out_features]."""
        return self.layers(self.normalized(features))

    def normalized(self, features: torch.Tensor) -> torch.Tensor:
        """Return features float[..., in_features] as the first layer gets them."""
        if self.standardize:
            features = (features.to(self.feature_mean.dtype) - self.feature_mean) / self.feature_std
        return features.to(self.dtype)

    @torch.no_grad()
    def fit_standardization(self, features: torch.Tensor) -> None:
        """Set the statistics from the features of training images, float[N, tokens, in_features]."""
        flat = features.flatten(0, -2).float()
        self.feature_mean.copy_(flat.mean(0))
        self.feature_std.copy_(flat.std(0).clamp_min(1e-4))

    @torch.no_grad()
    def fit_output_scale(self, features: torch.Tensor, target_rms: float) -> None:
        """Scale the last layer so that its outputs start with a given root mean square.

        Args:
            features: float[N, tokens, in_features] of training images.
            target_rms: root mean square that the outputs get, such as that of the embedding table.
        """
        rms = self(features).float().pow(2).mean().sqrt()
        last = self.layers[-1] if isinstance(self.layers, nn.Sequential) else self.layers
        assert isinstance(last, nn.Linear)
        last.weight.mul_(target_rms / rms)
        last.bias.mul_(target_rms / rms)


def _linear(in_features: int, out_features: int) -> nn.Module:
    return nn.Linear(in_features, out_features)


def _mlp2x_gelu(in_features: int, out_features: int) -> nn.Module:
    return nn.Sequential(nn.Linear(in_features, out_features), nn.GELU(), nn.Linear(out_features, out_features))


PROJECTORS: dict[str, Callable[[int, int], nn.Module]] = {"linear": _linear, "mlp2x_gelu": _mlp2x_gelu}
