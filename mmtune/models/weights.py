"""Save what was trained, load it back by name in both directions. safetensors only."""

import os
import sys
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from mmtune.errors import CheckpointError
from mmtune.models.adalora import whole_ranks
from mmtune.models.adapter_start import first_factors, starts_from_weights, take_out
from mmtune.models.prompts import has_prompts, prompt_encoder
from mmtune.models.vlm import VisionLanguageModel

ADAPTER_FOLDER = "adapter"
VISION_ADAPTER_FOLDER = "vision_adapter"
STACK_FOLDER = "stacked"
TRAINED = "default"  # PEFT's name of a model's own adapter; those that it is stacked on have others
ADAPTER_FILE = "adapter_model.safetensors"
START_FILE = "start.safetensors"
PROMPT_FILE = "prompt_encoder.safetensors"
PROJECTOR_FILE = "projector.safetensors"
WRONG_ADAPTER = "It was trained with another rank or for another model."


def save_weights(model: VisionLanguageModel, folder: Path) -> None:
    """Write the projector, the adapters and every other trained part into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    if model.projector is not None:
        write_tensors(folder / PROJECTOR_FILE, model.projector.state_dict())
    if isinstance(model.llm, PeftModel):
        _save_adapter(model.llm, folder / ADAPTER_FOLDER)
        if model.adapter_start is not None:
            write_tensors(folder / ADAPTER_FOLDER / START_FILE, model.adapter_start)
        for number, name in enumerate(stacked_names(model.llm)):
            save_named_adapter(model.llm, name, folder / STACK_FOLDER / str(number))
    if model.vision is not None and isinstance(model.vision.tower, PeftModel):
        _save_adapter(model.vision.tower, folder / VISION_ADAPTER_FOLDER)
    for name, part in _fully_tuned(model).items():
        write_tensors(folder / f"{name}.safetensors", _trained(part))


def saved_bytes(model: VisionLanguageModel) -> int:
    """Return the bytes of the weights that `save_weights` writes: what trains, the projector, adapters below the own.

    An adapter that starts from the weights is written twice: as it is, and as it started.
    """
    size = sum(value.nbytes for value in kept_parameters(model))
    if starts_from_weights(model.llm):
        size += sum(value.nbytes for value in model.llm.parameters() if value.requires_grad)
    return size


def kept_parameters(model: VisionLanguageModel) -> list[nn.Parameter]:
    """Return the parameters that `save_weights` reads, each once."""
    kept = [value for value in model.parameters() if value.requires_grad]
    kept += [] if model.projector is None else list(model.projector.parameters())
    kept += [value for name, value in model.llm.named_parameters() if ".lora_" in name]
    return list({id(value): value for value in kept}.values())


def _save_adapter(wrapped: PeftModel, folder: Path) -> None:
    with whole_ranks(wrapped):
        wrapped.save_pretrained(str(folder), save_embedding_layers=False, selected_adapters=[TRAINED])
    if has_prompts(wrapped):  # PEFT's file holds the virtual tokens alone, not what they are made by
        write_tensors(folder / PROMPT_FILE, prompt_encoder(wrapped).state_dict())
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty model card
    _use_default_mode(folder / ADAPTER_FILE)


def stacked_names(wrapped: PeftModel) -> list[str]:
    """Return PEFT's names of the adapters that the trained one is stacked on, the lowest first."""
    return [name for name in wrapped.peft_config if name != TRAINED]


def save_named_adapter(wrapped: PeftModel, name: str, folder: Path) -> None:
    """Write one of several adapters into a folder of its own, in PEFT's layout for an adapter alone."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = get_peft_model_state_dict(wrapped, adapter_name=name, save_embedding_layers=False)
    write_tensors(folder / ADAPTER_FILE, tensors)
    wrapped.peft_config[name].save_pretrained(str(folder))


def load_weights(model: VisionLanguageModel, folder: Path, *, parts: tuple[str, ...] | None = None) -> list[str]:
    """Load the parts that a run folder holds.

    Args:
        model: built as the run was.
        folder: a run folder or a checkpoint in it.
        parts: of `projector`, `adapter`, `vision_adapter`, `llm`, `vision`; None takes all the model has, and each
            must be there.

    Returns:
        The names of the parts loaded.

    Raises:
        CheckpointError: a file is missing or broken, or its names or shapes are not those of the model.
    """
    loaded = []
    for part in wanted_parts(model) if parts is None else parts:
        if part == "projector":
            assert model.projector is not None
            tensors = read_tensors(folder / PROJECTOR_FILE)
            check_projector_size(tensors, model.projector, folder)
            load_strictly(model.projector, tensors, folder / PROJECTOR_FILE)
        elif part == "adapter":
            _load_llm_adapter(model, folder / ADAPTER_FOLDER)
        elif part == "vision_adapter":
            assert model.vision is not None
            path = folder / VISION_ADAPTER_FOLDER / ADAPTER_FILE
            load_adapter(model.vision.tower, read_tensors(path), path)
        else:
            path = folder / f"{part}.safetensors"
            load_strictly(getattr(model, part), read_tensors(path), path, trained_only=True)
        loaded.append(part)
    return loaded


def _load_llm_adapter(model: VisionLanguageModel, folder: Path) -> None:
    """Load the adapter of the language model into base weights that nothing was taken out of yet."""
    if has_prompts(model.llm):
        load_strictly(prompt_encoder(model.llm), read_tensors(folder / PROMPT_FILE), folder / PROMPT_FILE)
        return
    if starts_from_weights(model.llm):
        model.adapter_start = read_tensors(folder / START_FILE)
        _check_tensors(first_factors(model.llm), model.adapter_start, folder / START_FILE, WRONG_ADAPTER)
        take_out(model.llm, model.adapter_start)
    load_adapter(model.llm, read_tensors(folder / ADAPTER_FILE), folder / ADAPTER_FILE)


def wanted_parts(model: VisionLanguageModel) -> list[str]:
    """Name the parts that a run of this model saves."""
    parts = ["projector"] if model.projector is not None else []
    parts += ["adapter"] if isinstance(model.llm, PeftModel) else []
    parts += ["vision_adapter"] if model.vision is not None and isinstance(model.vision.tower, PeftModel) else []
    return parts + list(_fully_tuned(model))


def held_parts(folder: Path) -> list[str]:
    """Name the parts that a run folder holds."""
    files = {
        "projector": PROJECTOR_FILE,
        "adapter": f"{ADAPTER_FOLDER}/{ADAPTER_FILE}",
        "vision_adapter": f"{VISION_ADAPTER_FOLDER}/{ADAPTER_FILE}",
        "llm": "llm.safetensors",
        "vision": "vision.safetensors",
    }
    return [part for part, name in files.items() if (folder / name).is_file()]


def _fully_tuned(model: VisionLanguageModel) -> dict[str, nn.Module]:
    parts: dict[str, nn.Module] = {}
    if not isinstance(model.llm, PeftModel) and _trained(model.llm):
        parts["llm"] = model.llm
    if model.vision is not None and not isinstance(model.vision.tower, PeftModel) and _trained(model.vision):
        parts["vision"] = model.vision
    return parts


def _trained(part: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value for name, value in part.named_parameters() if value.requires_grad}


def load_strictly(part: nn.Module, tensors: dict[str, torch.Tensor], path: Path, trained_only: bool = False) -> None:
    """Copy tensors into a part whose names and shapes must be the same.

    Raises:
        CheckpointError: names are missing or left over, or a shape differs.
    """
    own = _trained(part) if trained_only else part.state_dict()
    _check_tensors(own, tensors, path, "It was trained for another model.")
    with torch.no_grad():
        for name, value in tensors.items():
            own[name].copy_(value)


def load_adapter(wrapped: Any, tensors: dict[str, torch.Tensor], path: Path, name: str = TRAINED) -> None:
    """Load tensors into an adapter of a part, whose names and shapes must be the same.

    Args:
        wrapped: a PeftModel.
        tensors: by PEFT's names in files, without the adapter's name.
        path: where they come from, for errors.
        name: PEFT's name of the adapter.

    Raises:
        CheckpointError: names are missing or left over, or a shape differs.
    """
    with whole_ranks(wrapped):
        own = get_peft_model_state_dict(wrapped, adapter_name=name, save_embedding_layers=False)
        _check_tensors(own, tensors, path, WRONG_ADAPTER)
        set_peft_model_state_dict(wrapped, tensors, adapter_name=name)


def _check_tensors(own: dict[str, torch.Tensor], given: dict[str, torch.Tensor], path: Path, cause: str) -> None:
    """Compare names both ways, then shapes; `cause` is what a shape that differs comes from."""
    _check_names(set(own), set(given), path)
    for name, value in given.items():
        if own[name].shape != value.shape:
            message = f"'{name}' is {list(value.shape)} in the file, {list(own[name].shape)} in this model."
            raise CheckpointError(path, f"{message} {cause}")


def _check_names(own: set[str], given: set[str], path: Path) -> None:
    missing, extra = sorted(own - given), sorted(given - own)
    if missing or extra:
        parts = [
            f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
            for names, what in ((missing, "missing"), (extra, "left over"))
            if names
        ]
        raise CheckpointError(
            path, f"its weights are not this model's: {' and '.join(parts)}. Name the right run folder or file."
        )


def check_projector_size(tensors: dict[str, torch.Tensor], projector: Any, folder: Path) -> None:
    """Say what a projector of another size was made for, before names are compared.

    Raises:
        CheckpointError: it maps from or to another width, or there are no weights.
    """
    matrices = {name: value for name, value in tensors.items() if name.endswith("weight") and value.dim() == 2}
    weights = [matrices[name] for name in sorted(matrices)]  # layers.0 before layers.2
    if not weights:
        raise CheckpointError(
            folder / PROJECTOR_FILE, "holds no projector weights. Name a run folder of `mmtune pretrain`."
        )
    width_in, width_out = weights[0].shape[1], weights[-1].shape[0]
    if (width_in, width_out) != (projector.in_features, projector.out_features):
        message = (
            f"its projector maps {width_in} -> {width_out}, this model needs {projector.in_features} ->"
            f" {projector.out_features}. It was trained for another vision encoder or LLM."
        )
        raise CheckpointError(folder, message)


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file.

    Raises:
        CheckpointError: it is missing or broken.
    """
    if not path.is_file():
        raise CheckpointError(path, f"no such file (resolved to {path.resolve()}). Name a run folder that holds it.")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(path, f"broken or cut off ({error}). Take another checkpoint.") from None
    # They are mapped from the file, and Windows deletes no file that is mapped: a checkpoint could not be rotated.
    return {name: value.clone() for name, value in tensors.items()} if sys.platform == "win32" else tensors


def write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write a safetensors file with the usual file mode."""
    save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, path)
    _use_default_mode(path)


def _use_default_mode(path: Path) -> None:
    """Undo the 0600 that safetensors gives its files."""
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(0o666 & ~umask)
