"""Vision encoders: from pixels to a sequence of feature vectors. A new one is a function and a line of the table."""

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmtune.errors import ConfigError, ModelError
from mmtune.lookup import lookup
from mmtune.models.efficientnet import (
    NUM_GRID_CHANNELS,
    PIXEL_MEAN,
    PIXEL_STD,
    EfficientNetLite0,
    efficientnet_lite0_path,
    multi_scale_grid,
)

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class VisionEncoder(nn.Module):
    """What every encoder offers.

    Attributes:
        num_tokens: vectors an image becomes; 576 for CLIP ViT-L/14-336.
        hidden_size: their width; 1024 for CLIP ViT-L/14.
        preprocessing: `image_size`, `mean`, `std`, `resample` of the images it was trained on.
    """

    num_tokens: int
    hidden_size: int
    preprocessing: dict[str, Any]

    @property
    def is_frozen(self) -> bool:
        """Whether no parameter trains."""
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


class ClipEncoder(VisionEncoder):
    """A CLIP tower from transformers, stopped after the selected block: CLS dropped, no post-LN.

    Source: LLaVA (Liu et al. 2023, arXiv:2304.08485), which takes `hidden_states[-2]`.

    Args:
        tower: a `CLIPVisionModel`; the blocks after the selected one are removed from it.
        feature_layer: as an index of `hidden_states`; -2 is the output of the last block but one.
        preprocessing: see `VisionEncoder`.
    """

    def __init__(self, tower: nn.Module, feature_layer: int, preprocessing: dict[str, Any]):
        super().__init__()
        config: Any = tower.config
        num_blocks = config.num_hidden_layers + 1 + feature_layer if feature_layer < 0 else feature_layer
        if not 0 < num_blocks <= config.num_hidden_layers:
            message = (
                f"{feature_layer} is not a layer of this tower of {config.num_hidden_layers} blocks. LLaVA takes -2."
            )
            raise ModelError("model.vision.feature_layer", message)
        tower.encoder.layers = tower.encoder.layers[:num_blocks]  # type: ignore[union-attr,index]
        tower.post_layernorm = nn.Identity()  # never run, so not held either
        self.tower: Any = tower
        self.num_tokens = (config.image_size // config.patch_size) ** 2
        self.hidden_size = config.hidden_size
        self.preprocessing = preprocessing

    def features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return the patch features of the selected block."""
        pixel_values = pixel_values.to(self.tower.dtype)
        embeds = self.tower.pre_layrnorm(self.tower.embeddings(pixel_values))
        return self.tower.encoder(inputs_embeds=embeds).last_hidden_state[:, 1:]


def transformers_clip(name: str, *, feature_layer: int = -2, dtype: torch.dtype = torch.float32) -> VisionEncoder:
    """Load a CLIP tower from a transformers folder, of the tower alone or of the whole CLIP model."""
    from transformers import CLIPVisionModel

    folder = Path(name)
    config_path = folder / "config.json"
    if not config_path.is_file():
        message = f"no config.json there (resolved to {folder.resolve()}). Name a folder with a CLIP model."
        raise ModelError(f"model.vision.name: {name}", message)
    kind = json.loads(config_path.read_text(encoding="utf-8")).get("model_type")
    if kind not in ("clip", "clip_vision_model"):
        message = f"model_type '{kind}' is not a CLIP tower. This source reads clip and clip_vision_model."
        raise ModelError(str(config_path), message)
    tower: Any = CLIPVisionModel.from_pretrained(folder, dtype=dtype, local_files_only=True)
    return ClipEncoder(tower, feature_layer, _clip_preprocessing(folder, tower.config.image_size))


def _clip_preprocessing(folder: Path, image_size: int) -> dict[str, Any]:
    path = folder / "preprocessor_config.json"
    stored = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return {
        "image_size": image_size,
        "mean": tuple(stored.get("image_mean", CLIP_MEAN)),
        "std": tuple(stored.get("image_std", CLIP_STD)),
        "resample": "bicubic",
    }


class EfficientNetEncoder(VisionEncoder):
    """EfficientNet-Lite0 with ImageNet weights: features of several depths, pooled to a grid. Small and quick.

    Args:
        network: the network with its weights.
        grid: cells a side; an image becomes `grid * grid` tokens.
        image_size: side of the input in pixels, a multiple of 32.
    """

    def __init__(self, network: nn.Module, grid: int, image_size: int):
        super().__init__()
        if grid < 1 or image_size % 32:
            message = f"grid {grid} and image_size {image_size} do not fit: image_size is a multiple of 32, grid >= 1."
            raise ModelError("model.vision", message)
        self.network: Any = network
        self.grid, self.num_tokens = grid, grid * grid
        self.hidden_size = NUM_GRID_CHANNELS
        mean, std = (value / 255 for value in (PIXEL_MEAN, PIXEL_STD))
        self.preprocessing = {
            "image_size": image_size,
            "mean": (mean,) * 3,
            "std": (std,) * 3,
            "resample": "bicubic",
        }

    def features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return float[N, grid * grid, C], rows of the grid one after the other."""
        return multi_scale_grid(self.network, pixel_values.float(), self.grid)


def efficientnet(
    name: str, *, grid: int = 4, image_size: int = 128, dtype: torch.dtype = torch.float32
) -> VisionEncoder:
    """Load EfficientNet-Lite0; `dtype` is ignored, since it is small and runs in fp32."""
    lookup({"efficientnet_lite0": None}, name, "model.vision.name")
    return EfficientNetEncoder(EfficientNetLite0.from_file(efficientnet_lite0_path()), grid, image_size)


VISION_ENCODERS: dict[str, Callable[..., VisionEncoder]] = {
    "transformers": transformers_clip,
    "efficientnet": efficientnet,
}


def load_vision(source: str, name: str, dtype: torch.dtype, options: dict[str, Any]) -> VisionEncoder:
    """Load an encoder, frozen.

    Args:
        source: a key of `VISION_ENCODERS`.
        name: a folder or the name of a model, as the source understands it.
        dtype: of the encoder's weights.
        options: keyword arguments of the source's function, such as `feature_layer` or `grid`.

    Raises:
        ConfigError: the source is unknown or does not take one of the options.
    """
    load = lookup(VISION_ENCODERS, source, "model.vision.source")
    known = set(inspect.signature(load).parameters) - {"name", "dtype"}
    for key in options:
        if key not in known:
            message = f"source '{source}' has no such key. It takes: {', '.join(sorted(known))}."
            raise ConfigError(f"model.vision.{key}", message)
    return load(name, dtype=dtype, **options).requires_grad_(False)
