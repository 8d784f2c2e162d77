"""ViTs of transformers as vision encoders: CLIP, SigLIP and DINOv2, each cut after the block whose output is taken.

The features are `hidden_states[feature_layer]` as transformers counts them, of the patches only: no class token, no
registers, no last norm, no pooling head. What is not run is not held either.
"""

from typing import Any

import torch
from torch import nn
from transformers import Dinov2WithRegistersModel

from mmtune.models.vision_encoder import VisionEncoder, num_used_blocks


class ClipEncoder(VisionEncoder):
    """A CLIP tower: class token first, a norm before the blocks.

    Source: LLaVA (Liu et al. 2023, arXiv:2304.08485), which takes `hidden_states[-2]`.

    Args:
        tower: a `CLIPVisionModel`; the blocks after the selected one are removed from it.
        feature_layer: as an index of `hidden_states`; -2 is the output of the last block but one.
        preprocessing: see `VisionEncoder`.
    """

    def __init__(self, tower: nn.Module, feature_layer: int, preprocessing: dict[str, Any]):
        super().__init__()
        config: Any = tower.config
        self.tower = tower
        self.tower.encoder.layers = _used(self.tower.encoder.layers, feature_layer)
        self.tower.post_layernorm = nn.Identity()
        self.num_tokens = (config.image_size // config.patch_size) ** 2
        self.hidden_size = config.hidden_size
        self.preprocessing = preprocessing

    def features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return the patch features of the selected block."""
        tower = self.base_tower
        embeds = tower.pre_layrnorm(tower.embeddings(pixel_values.to(tower.dtype)))
        return tower.encoder(inputs_embeds=embeds).last_hidden_state[:, 1:]


class SiglipEncoder(VisionEncoder):
    """A SigLIP tower (Zhai et al. 2023, arXiv:2303.15343): every token is a patch. Arguments as `ClipEncoder`."""

    def __init__(self, tower: nn.Module, feature_layer: int, preprocessing: dict[str, Any]):
        super().__init__()
        config: Any = tower.config
        self.tower = tower
        self.tower.encoder.layers = _used(self.tower.encoder.layers, feature_layer)
        self.tower.post_layernorm = self.tower.head = nn.Identity()
        self.num_tokens = (config.image_size // config.patch_size) ** 2
        self.hidden_size = config.hidden_size
        self.preprocessing = preprocessing

    def features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return the patch features of the selected block."""
        tower = self.base_tower
        embeds = tower.embeddings(pixel_values.to(tower.dtype))
        return tower.encoder(inputs_embeds=embeds).last_hidden_state


class Dinov2Encoder(VisionEncoder):
    """A DINOv2 tower (Oquab et al. 2023, arXiv:2304.07193): class token first, then registers where it has them.

    Arguments as `ClipEncoder`. The positions fit any image size, so that of the preprocessing counts.
    """

    def __init__(self, tower: nn.Module, feature_layer: int, preprocessing: dict[str, Any]):
        super().__init__()
        config: Any = tower.config
        self.tower = tower
        self.tower.encoder.layer = _used(self.tower.encoder.layer, feature_layer)
        self.tower.layernorm = nn.Identity()
        self.tower.embeddings.mask_token = None  # of its pretraining only
        self.num_prefix_tokens = 1
        if isinstance(tower, Dinov2WithRegistersModel):
            self.num_prefix_tokens += config.num_register_tokens
        self.num_tokens = (preprocessing["image_size"] // config.patch_size) ** 2
        self.hidden_size = config.hidden_size
        self.preprocessing = preprocessing

    def features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return the patch features of the selected block."""
        tower = self.base_tower
        embeds = tower.embeddings(pixel_values.to(tower.dtype))
        return tower.encoder(embeds).last_hidden_state[:, self.num_prefix_tokens :]


def _used(blocks: nn.ModuleList, feature_layer: int) -> nn.ModuleList:
    return blocks[: num_used_blocks(feature_layer, len(blocks))]
