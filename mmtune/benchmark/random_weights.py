"""Random weights in the shape of the real ones, so that speed and memory can be measured where no hub is reached."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from mmtune.cache import cache_folder
from mmtune.errors import ModelError
from mmtune.models.hub import is_hub_name
from mmtune.models.language import EMBEDDED
from mmtune.schema import ModelConfig
from mmtune.testing import INTERNLM2_SHAPE, write_internlm2, write_tiny_clip
from mmtune.testing_vision import CLIP_L_336_SHAPE

log = logging.getLogger(__name__)


def _internlm2(folder: Path) -> None:
    shape: dict[str, Any] = INTERNLM2_SHAPE
    write_internlm2(folder, num_shards=4, dtype=torch.bfloat16, **shape)


def _clip_l_336(folder: Path) -> None:
    write_tiny_clip(folder, **CLIP_L_336_SHAPE)


SHAPES: dict[str, tuple[Callable[[Path], None], float]] = {
    "internlm2-chat-1_8b": (_internlm2, 3.8),
    "clip-vit-large-patch14-336": (_clip_l_336, 1.2),
}
"""The last part of a model's name -> what writes one of its shape, and its GB on disk."""


def use_random_weights(config: ModelConfig) -> list[str]:
    """Let a config name random models where its own are not here; return the names that were replaced.

    They are written once, into the cache.

    Raises:
        ModelError: a model is not here, and its shape is not known.
    """
    replaced = []
    if not _is_here(config.llm.name_or_path):
        replaced.append(config.llm.name_or_path)
        config.llm.name_or_path = str(_random_model(config.llm.name_or_path, "model.llm.name_or_path"))
    vision = config.vision
    if vision is not None and vision.source != "efficientnet" and not _is_here(vision.name):
        replaced.append(vision.name)
        vision.name = str(_random_model(vision.name, "model.vision.name"))
        vision.source, vision.pretrained = "transformers", None
    return replaced


def _is_here(name: str) -> bool:
    return Path(name).expanduser().exists() or name in EMBEDDED


def _random_model(name: str, place: str) -> Path:
    kind = Path(name).name.lower()
    if kind not in SHAPES:
        what = "is not looked up on a hub here" if is_hub_name(name) else "is not here"
        message = f"'{name}' {what}, and its shape is not known. Known: {', '.join(SHAPES)}. Name a folder."
        raise ModelError(place, message)
    write, gigabytes = SHAPES[kind]
    folder = cache_folder() / "random_weights" / kind
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{kind}.lock")):
        if not folder.exists():
            log.info("writing random weights of %s to %s: %.1f GB, once", kind, folder, gigabytes)
            unfinished = folder.with_name(f"{kind}.unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            write(unfinished)
            unfinished.rename(folder)
    return folder
