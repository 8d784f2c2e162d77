"""Vision encoders by source: the table and how one is loaded. A new one is a function and a line of the table."""

import inspect
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
from mmtune.models.openclip import open_clip_path, open_clip_vit
from mmtune.models.vision_encoder import VisionEncoder
from mmtune.models.vision_towers import tower_folder, tower_outline, transformers_tower


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
    name: str,
    *,
    grid: int = 4,
    image_size: int = 128,
    dtype: torch.dtype = torch.float32,
    hub: str = "huggingface",
) -> VisionEncoder:
    """Load EfficientNet-Lite0; `dtype` and `hub` do not matter: it runs in fp32, and a package carries it."""
    lookup({"efficientnet_lite0": None}, name, "model.vision.name")
    return EfficientNetEncoder(EfficientNetLite0.from_file(efficientnet_lite0_path()), grid, image_size)


VISION_ENCODERS: dict[str, Callable[..., VisionEncoder]] = {
    "transformers": transformers_tower,
    "open_clip": open_clip_vit,
    "efficientnet": efficientnet,
}


def load_vision(
    source: str, name: str, dtype: torch.dtype, options: dict[str, Any], hub: str = "huggingface"
) -> VisionEncoder:
    """Load an encoder, frozen.

    Args:
        source: a key of `VISION_ENCODERS`.
        name: a folder or the name of a model, as the source understands it.
        dtype: of the encoder's weights.
        options: keyword arguments of the source's function, such as `feature_layer` or `grid`.
        hub: where a hub name is looked up.

    Raises:
        ConfigError: the source is unknown or does not take one of the options.
        ModelError: there is no such model, or it cannot be read.
    """
    load = lookup(VISION_ENCODERS, source, "model.vision.source")
    _check_options(load, source, options)
    return load(name, dtype=dtype, hub=hub, **options).requires_grad_(False)


def vision_outline(source: str, name: str, options: dict[str, Any], hub: str = "huggingface") -> VisionEncoder:
    """Return an encoder for its `num_tokens`, `hidden_size` and `preprocessing` alone.

    Those of transformers come without weights, so that data can be checked before gigabytes are read; the others are
    loaded. Arguments and errors as `load_vision`.
    """
    if source != "transformers":
        return load_vision(source, name, torch.float32, options, hub)
    _check_options(tower_outline, source, options)
    return tower_outline(name, hub=hub, **options)


def _check_options(load: Callable[..., VisionEncoder], source: str, options: dict[str, Any]) -> None:
    known = set(inspect.signature(load).parameters) - {"name", "dtype", "hub"}
    for key in options:
        if key not in known:
            message = f"source '{source}' has no such key. It takes: {', '.join(sorted(known))}."
            raise ConfigError(f"model.vision.{key}", message)


def vision_path(source: str, name: str, pretrained: str | None, hub: str = "huggingface") -> Path | None:
    """Return the file or folder that holds an encoder's weights; None where a package or its cache does.

    Raises:
        ModelError: there is no such model.
    """
    lookup(VISION_ENCODERS, source, "model.vision.source")
    if source == "transformers":
        return tower_folder(name, hub)
    return open_clip_path(name, pretrained, hub) if source == "open_clip" else None
