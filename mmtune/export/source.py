"""A run that is to be exported: its parts, and its language model and projector as other libraries can hold them."""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from transformers import CLIPVisionModel, PreTrainedModel

from mmtune.build import Parts, build_parts, load_run
from mmtune.build_stack import with_own_stack
from mmtune.errors import CheckpointError
from mmtune.models.device import choose_device
from mmtune.models.houlsby import has_houlsby
from mmtune.models.language import llm_folder
from mmtune.models.precision import DTYPES
from mmtune.models.prompts import has_prompts
from mmtune.models.quantized import BITS, dequantized_weights
from mmtune.models.vit_encoders import ClipEncoder
from mmtune.models.weights import load_weights
from mmtune.run_folder import read_config
from mmtune.schema import Config

BASES = ("dequantized", "original")


@dataclass
class Source:
    """A run and how it is to be exported.

    Attributes:
        folder: of the run.
        config: its config, with the base models where they are now.
        parts: the run as it answers. Merging changes `parts.model.llm`; what it answers is asked before.
        dtype: of the weights to write.
        base: one of `BASES`: for a run on quantized weights, which 16-bit weights its adapter is merged into.
        layout: `llama` or `internlm2`: the names of the language model's weights.
    """

    folder: Path
    config: Config
    parts: Parts
    dtype: torch.dtype
    base: str = BASES[0]
    layout: str = "llama"

    @property
    def is_quantized(self) -> bool:
        """Whether the run answers with quantized weights."""
        return self.config.model.llm.quantization is not None

    @property
    def bits(self) -> str:
        """What its quantized weights are called: `4-bit` or `8-bit`."""
        assert self.config.model.llm.quantization is not None
        return f"{BITS[self.config.model.llm.quantization]}-bit"

    @property
    def llm_folder(self) -> Path:
        """Where the base language model is."""
        return llm_folder(self.config.model.llm.name_or_path, self.config.model.hub)


def open_run(
    folder: Path,
    *,
    llm: str | None = None,
    vision: str | None = None,
    dtype: str | None = None,
    base: str = BASES[0],
    layout: str = "llama",
) -> Source:
    """Load a run to export it; `llm` and `vision` name its base models where they moved.

    Raises:
        MMTuneError: the run is incomplete or its base models are not to be had.
    """
    parts = load_run(folder, llm=llm, vision=vision)
    config = read_config(folder)
    config.model = with_own_stack(config.model, folder)
    config.model.llm.name_or_path = llm or config.model.llm.name_or_path
    if config.model.vision is not None:
        config.model.vision.name = vision or config.model.vision.name
    chosen = DTYPES[dtype] if dtype is not None else parts.model.base_llm.dtype
    return Source(folder, config, parts, chosen, base, layout)


def unquantized_parts(source: Source, base: str) -> Parts:
    """Build a quantized run again over 16- or 32-bit weights, its adapter not merged.

    Args:
        source: a run with `quantization`.
        base: `original` takes the weights of the base folder; `dequantized` those that the run was trained on, as
            its 4- or 8-bit numbers say them.
    """
    config = copy.deepcopy(source.config.model)
    config.llm.quantization = None
    parts = build_parts(config, choose_device())
    load_weights(parts.model, source.folder)
    if base == "dequantized":
        _copy_dequantized(source.parts.model.llm, parts.model.llm)
    parts.model.eval().requires_grad_(False)
    return parts


@torch.no_grad()
def _copy_dequantized(quantized: nn.Module, plain: nn.Module) -> None:
    for name, weight in dequantized_weights(quantized).items():
        target: Any = plain.get_submodule(name)
        target.weight.copy_(weight)


def merged_llm(parts: Parts, dtype: torch.dtype) -> PreTrainedModel:
    """Return the language model with its adapter merged, in a dtype. The parts are changed."""
    llm: Any = parts.model.llm
    if isinstance(llm, PeftModel):
        llm = llm.merge_and_unload()
    parts.model.llm = llm.to(dtype)
    parts.model.llm.config.dtype = dtype
    return llm


def require_mergeable(source: Source, target: str) -> None:
    """Refuse runs whose adapter is more than a change of weights.

    Raises:
        CheckpointError: virtual tokens or bottleneck adapters, which `target` has no place for.
    """
    llm: Any = source.parts.model.llm
    if has_prompts(llm) or has_houlsby(llm):
        adapter = source.config.model.adapter or {}
        kind, mend = adapter.get("kind"), "mmtune chat and compare ask this run"
        mend = "Take --format adapter." if has_prompts(llm) else f"{mend}; for exports train lora."
        message = f"was tuned by {kind}, which cannot be merged into weights, and {target} holds weights alone."
        raise CheckpointError(source.folder, f"{message} {mend}")


def require_vision(source: Source, target: str) -> ClipEncoder:
    """Return the CLIP encoder of a run.

    Raises:
        CheckpointError: the run has none; `target` cannot hold another encoder.
    """
    vision = source.parts.model.vision
    if vision is None:
        message = f"was trained on text alone, and {target} holds a model that sees. Take --format merged or adapter."
        raise CheckpointError(source.folder, message)
    if not isinstance(vision, ClipEncoder):
        config = source.config.model.vision
        assert config is not None
        message = f"sees with '{config.name}' (source {config.source}), and {target} holds CLIP towers alone."
        raise CheckpointError(source.folder, f"{message} Take --format merged or adapter for its language model.")
    return vision


def trained_tower(vision: ClipEncoder) -> Any:
    """Return the tower as it sees: itself, or a copy with its adapter merged."""
    tower = vision.tower
    return copy.deepcopy(tower).merge_and_unload() if isinstance(tower, PeftModel) else tower


@torch.no_grad()
def plain_tower(vision: ClipEncoder, dtype: torch.dtype) -> CLIPVisionModel:
    """Return a tower that ends with the selected block, so that its layer -1 is the one the projector was trained on.

    Its post-LN, which LLaVA never runs, has new weights.
    """
    trained = trained_tower(vision)
    config = copy.deepcopy(trained.config)
    config.num_hidden_layers = len(trained.encoder.layers)
    config.dtype = dtype
    tower: Any = CLIPVisionModel(config)
    new = {name: value for name, value in tower.state_dict().items() if name.startswith("post_layernorm.")}
    tower.load_state_dict(new | trained.state_dict())
    return tower.to(dtype).eval()


@torch.no_grad()
def plain_projector(source: Source) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return weight and bias of each linear layer of the projector, in fp32.

    The statistics of `standardize` are folded into the first one: W (x - m) / s + b = (W / s) x + (b - (W / s) m).
    """
    projector = source.parts.model.projector
    assert projector is not None
    linears = [module for module in projector.layers.modules() if isinstance(module, nn.Linear)]
    layers = [(linear.weight.float().cpu(), linear.bias.float().cpu()) for linear in linears]
    if projector.standardize:
        weight, bias = layers[0]
        mean, std = projector.feature_mean.double().cpu(), projector.feature_std.double().cpu()
        scaled = weight.double() / std
        layers[0] = (scaled.float(), (bias.double() - scaled @ mean).float())
    return layers
