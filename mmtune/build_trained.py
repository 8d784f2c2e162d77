"""From a config to what trains: adapters and projector on parts that are there, or on parts without weights."""

from dataclasses import dataclass
from typing import Any

import torch

from mmtune.build_data import vision_options
from mmtune.build_stack import stack_of
from mmtune.errors import ModelError
from mmtune.models.adapters import attach_adapter, attach_vision_adapter
from mmtune.models.outline import META, llm_outline, vision_shape
from mmtune.models.projector import Projector
from mmtune.models.prompts import has_prompts
from mmtune.models.stacking import stack_adapters
from mmtune.models.tuning import set_trained
from mmtune.models.vision_encoder import VisionEncoder
from mmtune.models.vlm import VisionLanguageModel
from mmtune.schema import ModelConfig


def trained_llm(config: ModelConfig, llm: Any) -> Any:
    """Return a frozen language model with its new adapter, or with the weights that train.

    Raises:
        ConfigError: the values of `tune` or of the adapter do not fit the model.
    """
    if config.adapter is None:
        set_trained(llm, config.llm.tune, "model.llm.tune")
        return llm
    llm = attach_adapter(llm, config.adapter)
    if config.stack_on:
        stack_adapters(llm, stack_of(config))
    return llm


def assemble(config: ModelConfig, llm: Any, vision: VisionEncoder | None, device: torch.device) -> VisionLanguageModel:
    """Return the model of a config; the projector and the vision adapter are new.

    Args:
        config: of the model.
        llm: from `trained_llm`, on its device.
        vision: None of a model of text.
        device: where the model goes.

    Raises:
        ConfigError: a value of `tune` or of an adapter does not fit the part.
    """
    if vision is None or config.vision is None or config.projector is None:
        return VisionLanguageModel(llm)
    set_trained(vision.requires_grad_(False), config.vision.tune, "model.vision.tune")
    if config.vision.adapter is not None:
        attach_vision_adapter(vision, config.vision.adapter)
    vision.to(device)
    width = llm.get_input_embeddings().weight.shape[1]
    projector = Projector(config.projector.kind, vision.hidden_size, width, config.projector.standardize)
    projector.to(device).requires_grad_(config.projector.tune == "full")
    return VisionLanguageModel(llm, vision, projector)


@dataclass(frozen=True)
class Outline:
    """A model without weights.

    Attributes:
        model: on the meta device, as it trains.
        sources: where the shape of each part is from, such as `llm: models/llm/config.json`.
    """

    model: VisionLanguageModel
    sources: tuple[str, ...]


def build_outline(config: ModelConfig, dtype: torch.dtype) -> Outline:
    """Build a model on the meta device, from configs alone, by the functions that build a real one.

    Args:
        config: of the model.
        dtype: that the language model computes in.

    Raises:
        ModelError: the shape of a part is nowhere on this machine.
        ConfigError: a value of `tune` or of an adapter does not fit the part.
    """
    llm, source = llm_outline(
        config.llm.name_or_path,
        dtype=dtype,
        quantization=config.llm.quantization,
        double_quantization=config.llm.double_quantization,
        hub=config.hub,
        attn_implementation=config.llm.attn_implementation,
    )
    llm = _without_values(config, llm)
    vision, sources = None, [f"llm: {source}"]
    if config.vision is not None:
        name = config.vision.name
        vision, source = vision_shape(config.vision.source, name, dtype, vision_options(config.vision), config.hub)
        sources.append(f"vision: {source}")
    with META:
        model = assemble(config, llm, vision, META)
    return Outline(model, tuple(sources))


def _without_values(config: ModelConfig, llm: Any) -> Any:
    """`trained_llm` on the meta device; the numbers of virtual tokens, which are no weights, stay real."""
    try:
        with META:
            llm = trained_llm(config, llm)
    except (RuntimeError, NotImplementedError) as error:
        reason = str(error).splitlines()[0][:200].rstrip(".")
        message = f"this adapter reads weights when it is put on, and planning has none ({reason})."
        raise ModelError("model.adapter", f"{message} Measure it with mmtune bench.") from None
    if has_prompts(llm):
        llm.prompt_tokens = {name: torch.arange(len(tokens)) for name, tokens in llm.prompt_tokens.items()}
    return llm
