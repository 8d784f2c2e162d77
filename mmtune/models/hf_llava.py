"""A whole model in the layout of transformers' LlavaForConditionalGeneration, taken apart into the parts used here."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM, CLIPVisionModel, LlavaForConditionalGeneration, PreTrainedModel

from mmtune.errors import ModelError
from mmtune.models.json_files import read_json
from mmtune.models.projector import Projector
from mmtune.models.vision_encoder import VisionEncoder
from mmtune.models.vision_towers import CLIP, ClipEncoder, read_preprocessing, stored_preprocessing

MODEL_TYPE = "llava"
TAKES = {"vision_feature_select_strategy": "default", "projector_hidden_act": "gelu", "multimodal_projector_bias": True}
"""What a config may say of its projector and of the tower's class token."""


class LlavaParts(NamedTuple):
    """The parts of such a model."""

    llm: PreTrainedModel
    vision: VisionEncoder
    projector: Projector


def is_hf_llava(folder: Path) -> bool:
    """Whether a folder holds such a model."""
    path = folder / "config.json"
    return path.is_file() and read_json(path).get("model_type") == MODEL_TYPE


def load_hf_llava(folder: Path, dtype: torch.dtype) -> LlavaParts:
    """Load a model of this layout, frozen.

    Args:
        folder: such as `mmtune export --format hf-llava` writes.
        dtype: of the weights.

    Raises:
        ModelError: it cannot be read, or has parts or an image processor that are not done here.
    """
    config = read_json(folder / "config.json")
    for key, value in TAKES.items():
        if config.get(key, value) != value:
            raise ModelError(str(folder), f"config.json has {key}: {config[key]!r}. Only {value!r} is read here.")
    path, stored = stored_preprocessing(folder)
    if not stored.get("do_pad", False):
        message = "prepares images without padding them to a square (do_pad: false), which is not done here."
        raise ModelError(str(path), f"{message} Take another export.")
    try:
        whole: Any = LlavaForConditionalGeneration.from_pretrained(folder, dtype=dtype, local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).splitlines()[0][:200].rstrip(".")
        raise ModelError(str(folder), f"cannot be loaded as a LLaVA: {reason}. Export it again.") from None
    tower = whole.model.vision_tower
    if not isinstance(tower, CLIPVisionModel):
        raise ModelError(str(folder), f"sees with a {type(tower).__name__}. Only CLIP towers are read here.")
    preprocessing = read_preprocessing(folder, CLIP) | {"image_size": tower.config.image_size}
    vision = ClipEncoder(tower, whole.config.vision_feature_layer, preprocessing)
    return LlavaParts(_llm(whole), vision.requires_grad_(False), _projector(whole))


def _llm(whole: Any) -> PreTrainedModel:
    """Put decoder and head into a causal language model of their own, without a copy of their weights."""
    with torch.device("meta"):
        llm: Any = AutoModelForCausalLM.from_config(whole.config.text_config)
    setattr(llm, llm.base_model_prefix, whole.model.language_model)
    llm.set_output_embeddings(whole.lm_head)
    return llm.requires_grad_(False)


def _projector(whole: Any) -> Projector:
    both = whole.model.multi_modal_projector
    projector = Projector("mlp2x_gelu", both.linear_1.in_features, both.linear_2.out_features)
    weights = {
        f"{number}.{name}": value
        for number, linear in ((0, both.linear_1), (2, both.linear_2))
        for name, value in linear.state_dict().items()
    }
    projector.layers.load_state_dict(weights)
    return projector.requires_grad_(False)
