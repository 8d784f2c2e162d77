"""Tiny vision towers with random weights, beside the CLIP tower of `testing.py`: 32 pixels, 4 x 4 patches.

`CLIP_L_336_SHAPE` is the shape of the real CLIP tower.
"""

from pathlib import Path
from typing import Any

import mmtune.torchvision_ops  # noqa: F401  (before transformers)

# isort: split
import torch
from transformers import (
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from mmtune.models.known_shapes import CLIP_L_336_SHAPE as CLIP_L_336_SHAPE

SHAPE: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}


def write_tiny_siglip(folder: Path | str, seed: int = 0) -> Path:
    """Write a SigLIP tower of 3 blocks and width 16."""
    return _write(SiglipVisionModel, SiglipVisionConfig(**SHAPE, intermediate_size=32), folder, seed)


def write_tiny_dinov2(folder: Path | str, seed: int = 0, num_register_tokens: int = 0) -> Path:
    """Write a DINOv2 tower of 3 blocks and width 16, of the kind with registers where it shall have some."""
    if num_register_tokens:
        config = Dinov2WithRegistersConfig(**SHAPE, mlp_ratio=2, num_register_tokens=num_register_tokens)
        return _write(Dinov2WithRegistersModel, config, folder, seed)
    return _write(Dinov2Model, Dinov2Config(**SHAPE, mlp_ratio=2), folder, seed)


def _write(model: Any, config: Any, folder: Path | str, seed: int) -> Path:
    """Write a tower whose every weight is random: real ones have no zero biases, and a test would not see them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tower = model(config)
        for weight in tower.parameters():
            torch.nn.init.normal_(weight, std=0.2)
        tower.save_pretrained(folder)
    return Path(folder)
