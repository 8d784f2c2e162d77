"""What every vision encoder offers, and how many of its blocks run. The encoders are in the files beside this one."""

from typing import Any

import torch
from peft import PeftModel
from torch import nn

from mmtune.errors import ModelError

DEFAULT_FEATURE_LAYER = -2


class VisionEncoder(nn.Module):
    """From pixels to a sequence of feature vectors.

    Attributes:
        tower: the network that adapters can go on, maybe inside a PEFT wrapper; None where none can.
        num_tokens: vectors an image becomes; 576 for CLIP ViT-L/14-336.
        hidden_size: their width; 1024 for CLIP ViT-L/14.
        preprocessing: `image_size`, `mean`, `std`, `resample` of the images it was trained on.
    """

    tower: Any
    num_tokens: int
    hidden_size: int
    preprocessing: dict[str, Any]

    def __init__(self) -> None:
        super().__init__()
        self.register_module("tower", None)

    @property
    def base_tower(self) -> Any:
        """The tower inside a PEFT wrapper, or itself."""
        return self.tower.get_base_model() if isinstance(self.tower, PeftModel) else self.tower

    @property
    def is_frozen(self) -> bool:
        """Whether no parameter trains, neither of the encoder nor of an adapter on it."""
        return not any(parameter.requires_grad for parameter in self.parameters())

    def train(self, mode: bool = True) -> "VisionEncoder":
        """Switch to training, unless frozen: batch norms would drift and dropout would blur what never learns."""
        return super().train(mode and not self.is_frozen)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Map pixels float[N, 3, H, W] to features float[N, num_tokens, hidden_size].

        A frozen encoder runs without gradients, which saves 60 % of its cost.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.is_frozen):
            return self.features(pixel_values)

    def features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Map pixels float[N, 3, H, W] to features float[N, num_tokens, hidden_size]."""
        raise NotImplementedError


def num_used_blocks(feature_layer: int, num_blocks: int) -> int:
    """Return how many blocks run, so that the last one's output is `hidden_states[feature_layer]`.

    Args:
        feature_layer: an index of `hidden_states`, which holds the embeddings and then each block's output.
        num_blocks: blocks of the whole tower.

    Raises:
        ModelError: there is no such layer, or it is before the first block.
    """
    used = num_blocks + 1 + feature_layer if feature_layer < 0 else feature_layer
    if not 0 < used <= num_blocks:
        message = f"{feature_layer} is not a layer of this tower of {num_blocks} blocks. LLaVA takes -2."
        raise ModelError("model.vision.feature_layer", message)
    return used
