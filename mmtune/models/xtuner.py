"""From XTuner's weights to the parts of a model of ours: names, split matrices, strict loading, a report.

XTuner trains InternLM2 under its own names, with query, key and value in one matrix; here it is a Llama. An adapter on
the fused matrix splits exactly: the three share A, and the rows of B are split as the rows of the weight are.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from mmtune.errors import CheckpointError
from mmtune.models.internlm2 import QKV, WQKV, llama_name, num_heads, split_wqkv, to_llama
from mmtune.models.vit_encoders import ClipEncoder
from mmtune.models.vlm import VisionLanguageModel
from mmtune.models.weights import check_projector_size, load_strictly
from mmtune.models.xtuner_files import Tensors, XTunerFile, read_xtuner
from mmtune.models.xtuner_lora import load_lora

log = logging.getLogger(__name__)
PROJECTOR_KINDS = {1: "linear", 2: "mlp2x_gelu"}
"""Linear layers of XTuner's projector -> the kind here."""


def load_xtuner(model: VisionLanguageModel, path: Path) -> list[str]:
    """Load the trained weights of XTuner into a new model, strictly by name, and log what was loaded.

    Args:
        model: with the adapters that its config asks for.
        path: a `.pth` file, a DeepSpeed folder or a converted folder; see `xtuner_files`.

    Returns:
        The names of the parts loaded.

    Raises:
        CheckpointError: see `read_xtuner`; or weights are left over, missing, of another rank or size.
    """
    found = read_xtuner(path)
    if not any(found.groups.values()):
        raise CheckpointError(path, "holds no trained weights. Name a checkpoint of XTuner, such as iter_2181.pth.")
    loaded = []
    for group, (part, load) in LOADERS.items():
        tensors = found.groups.get(group, {})
        if tensors:
            _require_finite(tensors, path)
            load(model, tensors, found)
            count = sum(tensor.numel() for tensor in tensors.values())
            log.info("%s: %s of XTuner, %d tensors, %.2f M values", path, part, len(tensors), count / 1e6)
            loaded.append(part)
    for note in found.notes:
        log.warning("%s: not loaded: %s", path, note)
    return loaded


def _require_finite(tensors: Tensors, path: Path) -> None:
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(path, f"'{name}' holds NaN or infinity: that training diverged. Take an earlier one.")


# ---------------------------------------------------------------- names


def projector_tensors(tensors: Tensors) -> Tensors:
    """Rename XTuner's `model.0.weight`, `model.2.weight` to those of `mmtune.models.projector.Projector`."""
    is_linear = num_projector_layers(tensors) == 1
    return {
        name.replace("model.0.", "layers.") if is_linear else name.replace("model.", "layers.", 1): tensors[name]
        for name in sorted(tensors)
    }


def num_projector_layers(tensors: Tensors) -> int:
    """Count the linear layers of XTuner's projector: its `projector_depth`."""
    return len({name.rpartition(".")[0] for name in tensors})


def adapter_tensors(tensors: Tensors, heads: int, key_value_heads: int) -> Tensors:
    """Rename a LoRA on InternLM2 to PEFT's names on the Llama class, and split those on wqkv.

    Args:
        tensors: `base_model.model.model.layers.0.attention.wqkv.lora_A.default.weight` and so on, with or without the
            adapter's name `default`; names of other LLMs stay.
        heads: query heads of the LLM; 16 for InternLM2-1.8B.
        key_value_heads: 8 for InternLM2-1.8B.
    """
    renamed: Tensors = {}
    for name, tensor in tensors.items():
        name = _without_adapter_name(name)
        if f".{WQKV}." not in name:
            renamed[llama_name(name)] = tensor
            continue
        parts = (tensor,) * 3 if ".lora_A." in name else split_wqkv(tensor, heads, key_value_heads)
        for ours, part in zip(QKV, parts, strict=True):
            renamed[name.replace(WQKV, ours)] = part
    return renamed


def vision_adapter_tensors(tensors: Tensors, num_blocks: int) -> tuple[Tensors, list[int]]:
    """Rename a LoRA on XTuner's CLIP tower to PEFT's names on the tower of `ClipEncoder`.

    Args:
        tensors: `base_model.model.vision_model.encoder.layers.0.self_attn.q_proj.lora_A.default.weight` and so on.
        num_blocks: that the encoder here has; those after the selected layer do not exist.

    Returns:
        The renamed tensors, and the numbers of the blocks that were left out.
    """
    kept, left_out = {}, set()
    for name, tensor in tensors.items():
        name = _without_adapter_name(name).replace(".vision_model.", ".")
        block = _block_of(name)
        if block is not None and block >= num_blocks:
            left_out.add(block)
        else:
            kept[name] = tensor
    return kept, sorted(left_out)


def _without_adapter_name(name: str) -> str:
    return name.replace(".lora_A.default.", ".lora_A.").replace(".lora_B.default.", ".lora_B.")


def _block_of(name: str) -> int | None:
    number = name.partition(".layers.")[2].partition(".")[0]
    return int(number) if number.isdigit() else None


# ---------------------------------------------------------------- loading


def _load_projector(model: VisionLanguageModel, tensors: Tensors, found: XTunerFile) -> None:
    projector, path, depth = model.projector, found.path, num_projector_layers(tensors)
    if projector is None:
        message = "holds a projector, but this model has no vision encoder. Set model.vision and model.projector."
        raise CheckpointError(path, message)
    check_projector_size(tensors, projector, path)
    kind = PROJECTOR_KINDS.get(depth)
    if kind is None:
        message = f"its projector has {depth} layers, those here have 1 or 2. Take one of projector_depth 1 or 2."
        raise CheckpointError(path, message)
    if projector.standardize:
        message = "its projector takes features as they are. Set model.projector.standardize: false."
        raise CheckpointError(path, message)
    if ("layers.weight" in projector.state_dict()) != (kind == "linear"):
        raise CheckpointError(path, f"its projector has {depth} layers. Set model.projector.kind: {kind}.")
    load_strictly(projector, projector_tensors(tensors), path)


def _load_adapter(model: VisionLanguageModel, tensors: Tensors, found: XTunerFile) -> None:
    renamed = adapter_tensors(tensors, *_heads_to_split_by(model, tensors, found.path))
    load_lora(model.llm, renamed, found.path, found.settings.get("llm_adapter", {}), "model.llm", "model.adapter")


def _heads_to_split_by(model: VisionLanguageModel, tensors: Tensors, path: Path) -> tuple[int, int]:
    """Return the numbers of heads by which fused matrices are split, after a look at their sizes."""
    fused = {name: value for name, value in tensors.items() if f".{WQKV}." in name and ".lora_A." not in name}
    if not fused:
        return 1, 1
    config: Any = model.base_llm.config
    if config.model_type != "llama":
        message = f"was trained on InternLM2, this LLM is a {config.model_type}. Name InternLM2 as"
        raise CheckpointError(path, f"{message} model.llm.name_or_path.")
    heads, key_value_heads = num_heads(config)
    rows = (heads + 2 * key_value_heads) * config.head_dim
    for name, tensor in fused.items():
        if tensor.shape[0] != rows:
            message = f"'{name}' has {tensor.shape[0]} rows, this LLM needs {rows}. It was trained for another LLM."
            raise CheckpointError(path, message)
    return heads, key_value_heads


def _load_vision_adapter(model: VisionLanguageModel, tensors: Tensors, found: XTunerFile) -> None:
    encoder = model.vision
    if not isinstance(encoder, ClipEncoder):
        message = "holds a LoRA on a CLIP tower, which this model does not have. Set model.vision.source: transformers"
        raise CheckpointError(found.path, f"{message} and model.vision.name: a CLIP folder.")
    renamed, left_out = vision_adapter_tensors(tensors, len(encoder.base_tower.encoder.layers))
    if left_out:
        found.notes.append(f"the LoRA on {_blocks_in_words(left_out)}")
    settings = found.settings.get("vision_adapter", {})
    load_lora(encoder.tower, renamed, found.path, settings, "model.vision", "model.vision.adapter")


def _blocks_in_words(numbers: list[int]) -> str:
    counted = ", ".join(str(number + 1) for number in numbers)
    return f"block {counted} of the CLIP tower (after the selected layer, so it is never run)"


def _load_llm(model: VisionLanguageModel, tensors: Tensors, found: XTunerFile) -> None:
    if isinstance(model.llm, PeftModel) or not _trains(model.llm):
        message = "holds a whole language model. Set model.llm.tune: full, or name its converted folder as"
        raise CheckpointError(found.path, f"{message} model.llm.name_or_path.")
    renamed = dict(to_llama(tensors.items(), *_heads_to_split_by(model, tensors, found.path)))
    load_strictly(model.llm, renamed, found.path, trained_only=True)


def _load_vision(model: VisionLanguageModel, tensors: Tensors, found: XTunerFile) -> None:
    encoder = model.vision
    if not isinstance(encoder, ClipEncoder) or isinstance(encoder.tower, PeftModel) or not _trains(encoder):
        message = "holds a whole CLIP tower. Set model.vision.tune: full, or name its converted folder as"
        raise CheckpointError(found.path, f"{message} model.vision.name.")
    kept, left_out = vision_adapter_tensors(tensors, len(encoder.tower.encoder.layers))
    if left_out:
        found.notes.append(_blocks_in_words(left_out))
    renamed = {f"tower.{name.removeprefix('vision_model.')}": tensor for name, tensor in kept.items()}
    unused = [name for name in renamed if name.startswith("tower.post_layernorm.") or name.endswith(".position_ids")]
    if unused:
        found.notes.append(f"{', '.join(unused)} (never used)")
    load_strictly(encoder, {name: renamed[name] for name in renamed if name not in unused}, found.path, True)


def _trains(part: torch.nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in part.parameters())


Loader = Callable[[VisionLanguageModel, Tensors, XTunerFile], None]
LOADERS: dict[str, tuple[str, Loader]] = {
    "projector": ("projector", _load_projector),
    "llm_adapter": ("adapter", _load_adapter),
    "vision_adapter": ("vision_adapter", _load_vision_adapter),
    "llm": ("llm", _load_llm),
    "vision": ("vision", _load_vision),
}
"""Group of an `XTunerFile` -> its name as a part of a run, and what loads it."""
