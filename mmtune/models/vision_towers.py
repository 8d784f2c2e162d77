"""ViTs from transformers folders: which families are read, their weights and preprocessing."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import CLIPVisionModel, Dinov2Model, Dinov2WithRegistersModel, SiglipVisionModel

from mmtune.errors import ModelError
from mmtune.models.hub import hub_folder, is_hub_name
from mmtune.models.json_files import read_json
from mmtune.models.vision_encoder import DEFAULT_FEATURE_LAYER, VisionEncoder
from mmtune.models.vit_encoders import ClipEncoder, Dinov2Encoder, SiglipEncoder

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)
RESAMPLING = {2: "bilinear", 3: "bicubic"}
"""Pillow's numbers, as preprocessor_config.json has them -> the names of `mmtune.data.images`."""

PLACE = "model.vision.name"


@dataclass(frozen=True)
class Family:
    """How the towers of one kind are read.

    Attributes:
        model: their class in transformers.
        encoder: what makes an encoder of a tower.
        mean: of each channel, where the folder does not say.
        std: of each channel, where the folder does not say.
        image_size: side in pixels where the folder does not say; None where the tower takes one size only.
    """

    model: Any
    encoder: Callable[[nn.Module, int, dict[str, Any]], VisionEncoder]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    image_size: int | None = None


CLIP = Family(CLIPVisionModel, ClipEncoder, CLIP_MEAN, CLIP_STD)
SIGLIP = Family(SiglipVisionModel, SiglipEncoder, HALF, HALF)
DINOV2 = Family(Dinov2Model, Dinov2Encoder, IMAGENET_MEAN, IMAGENET_STD, 224)
DINOV2_REGISTERS = Family(Dinov2WithRegistersModel, Dinov2Encoder, IMAGENET_MEAN, IMAGENET_STD, 224)
FAMILIES: dict[str, Family] = {
    "clip": CLIP,
    "clip_vision_model": CLIP,
    "siglip": SIGLIP,  # also SigLIP 2 of fixed size
    "siglip_vision_model": SIGLIP,
    "dinov2": DINOV2,
    "dinov2_with_registers": DINOV2_REGISTERS,
}
"""`model_type` of config.json -> family."""


def tower_folder(name: str, hub: str) -> Path:
    """Return the local folder of a tower: a folder, or a hub name.

    Raises:
        ModelError: it is nowhere to be found; the message says where it was looked for.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if is_hub_name(name):
        return hub_folder(name, hub, PLACE)
    message = f"'{name}' is no folder (resolved to {folder.resolve()}) and no hub name. Name a folder with a ViT."
    raise ModelError(PLACE, message)


def transformers_tower(
    name: str,
    *,
    feature_layer: int = DEFAULT_FEATURE_LAYER,
    image_size: int | None = None,
    dtype: torch.dtype = torch.float32,
    hub: str = "huggingface",
) -> VisionEncoder:
    """Load a tower from a transformers folder, of the tower alone or of a whole image-text model.

    Args:
        name: a folder or a hub name.
        feature_layer: see `ClipEncoder`.
        image_size: side of the images in pixels, for towers that take several; None follows the folder.
        dtype: of the weights.
        hub: where a hub name is looked up.

    Raises:
        ModelError: the folder holds no tower of `FAMILIES`, or one that cannot be read.
    """
    return _encoder(tower_folder(name, hub), feature_layer, image_size, partial(_load, dtype=dtype))


def tower_outline(
    name: str,
    *,
    feature_layer: int = DEFAULT_FEATURE_LAYER,
    image_size: int | None = None,
    hub: str = "huggingface",
) -> VisionEncoder:
    """Return the encoder that `transformers_tower` loads with the same arguments, on the meta device: no weights."""
    return _encoder(tower_folder(name, hub), feature_layer, image_size, _without_weights)


def _encoder(
    folder: Path, feature_layer: int, image_size: int | None, make_tower: Callable[[Any, Path], Any]
) -> VisionEncoder:
    kind = read_json(folder / "config.json").get("model_type")
    if kind not in FAMILIES:
        message = f"model_type '{kind}' is no vision tower that this source reads. It reads: {', '.join(FAMILIES)}."
        raise ModelError(str(folder / "config.json"), message)
    family = FAMILIES[kind]
    tower = make_tower(family.model, folder)
    preprocessing = read_preprocessing(folder, family)
    if family.image_size is None:
        only = tower.config.image_size
        if image_size not in (None, only):
            raise ModelError("model.vision.image_size", f"this tower takes {only} pixels only (got {image_size}).")
        preprocessing["image_size"] = only
    elif image_size is not None:
        preprocessing["image_size"] = image_size
    return family.encoder(tower, feature_layer, preprocessing)


def _without_weights(model: Any, folder: Path) -> Any:
    try:
        config = model.config_class.from_pretrained(folder, local_files_only=True)
        with torch.device("meta"):
            return model(config)
    except Exception as error:  # as in `_load`
        raise _unreadable(model, folder, error) from None


def _unreadable(model: Any, folder: Path, error: Exception) -> ModelError:
    reason = str(error).splitlines()[0][:200].rstrip(".")
    return ModelError(str(folder), f"no {model.__name__} can be read: {reason}. Download it again.")


def _load(model: Any, folder: Path, dtype: torch.dtype) -> Any:
    """Load a tower; weights that the folder lacks are an error, the text side that is left over is none."""
    try:
        tower, report = model.from_pretrained(folder, dtype=dtype, local_files_only=True, output_loading_info=True)
    except Exception as error:  # transformers raises anything from OSError to RuntimeError here
        raise _unreadable(model, folder, error) from None
    missing = sorted(report["missing_keys"])
    if missing:
        names = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise ModelError(str(folder), f"misses {len(missing)} weights ({names}). Download the model again.")
    return tower


def read_preprocessing(folder: Path, family: Family) -> dict[str, Any]:
    """Return size, mean, deviation and resampling as the folder's preprocessor says, else as the family has them.

    Raises:
        ModelError: the preprocessor asks for something that is not done here.
    """
    path, stored = stored_preprocessing(folder)
    resample = stored.get("resample", 3)
    if resample not in RESAMPLING:
        message = f"resample {resample} is not done here. Known: 2 (bilinear), 3 (bicubic). Mend the file."
        raise ModelError(str(path), message)
    normalizes = stored.get("do_normalize", True)
    return {
        "image_size": _side(stored, path) or family.image_size,
        "mean": tuple(stored.get("image_mean", family.mean)) if normalizes else (0.0, 0.0, 0.0),
        "std": tuple(stored.get("image_std", family.std)) if normalizes else (1.0, 1.0, 1.0),
        "resample": RESAMPLING[resample],
    }


def stored_preprocessing(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Return the file that says how a folder's images are prepared, and what it says; nothing where there is none."""
    path = folder / "preprocessor_config.json"
    if path.is_file():
        return path, read_json(path)
    path = folder / "processor_config.json"  # where newer versions of transformers put it
    return path, read_json(path).get("image_processor", {}) if path.is_file() else {}


def _side(stored: dict[str, Any], path: Path) -> int | None:
    """The side of the images that leave the preprocessor: that of the crop, where there is one."""
    size = stored.get("crop_size") if stored.get("do_center_crop", True) else None
    size = size or stored.get("size")
    if size is None:
        return None
    sides = set(size.values()) if isinstance(size, dict) else {size}
    if len(sides) > 1:
        raise ModelError(str(path), f"images of {size} are not square. Only square ones are read here.")
    return int(sides.pop())
