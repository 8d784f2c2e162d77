"""XTuner's three kinds of trained weights, read into one shape. What becomes of them is `xtuner.py`'s.

- `iter_2181.pth`: mmengine's file, with `state_dict`, `meta` and the training's log.
- `iter_2181.pth/`: DeepSpeed's folder; ZeRO-2 keeps the weights whole in `mp_rank_00_model_states.pt`.
- what `xtuner convert pth_to_hf` writes: `projector/`, `llm_adapter/`, `visual_encoder_adapter/`, or one PEFT adapter.

Source: xtuner 0.1.23, `model/llava.py`, `model/sft.py` and `tools/model_converters/pth_to_hf.py`.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from mmtune.errors import CheckpointError, MMTuneError
from mmtune.models.checkpoint_files import read_weights
from mmtune.models.json_files import read_json
from mmtune.models.safe_pickle import read_pickle
from mmtune.models.weights import read_tensors
from mmtune.python_config import read_python_config

Tensors = dict[str, torch.Tensor]

PREFIXES = {
    "llm.base_model.": ("llm_adapter", "base_model."),
    "visual_encoder.base_model.": ("vision_adapter", "base_model."),
    "projector.": ("projector", ""),
    "llm.": ("llm", ""),
    "visual_encoder.": ("vision", ""),
}
"""How names of a state dict start -> the group that they belong to, and what their names there start with."""

LORA_KEYS = {"llm_lora": "llm_adapter", "lora": "llm_adapter", "visual_encoder_lora": "vision_adapter"}
"""Keys of `model` in XTuner's config -> the group whose rank and alpha they hold."""

ADAPTER_FOLDERS = {"llm_adapter": "llm_adapter", "visual_encoder_adapter": "vision_adapter"}
WHOLE_MODELS = {"visual_encoder": "model.vision.name", ".": "model.llm.name_or_path"}
ZERO2_FILE = "mp_rank_00_model_states.pt"
ZERO3_FILE = "zero_pp_rank_0_mp_rank_00_model_states.pt"
MARKS = ("projector/config.json", *ADAPTER_FOLDERS, "adapter_config.json", ZERO2_FILE, ZERO3_FILE)


@dataclass
class XTunerFile:
    """What an artefact holds, under XTuner's own names.

    Attributes:
        path: of the file or folder.
        groups: tensors of `projector`, `llm_adapter`, `vision_adapter`, `llm`, `vision`; names start below the group.
        settings: `r` and `lora_alpha` of an adapter group, where the artefact records them.
        notes: what was left out, and why.
    """

    path: Path
    groups: dict[str, Tensors] = field(default_factory=dict)
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def is_xtuner(path: Path) -> bool:
    """Whether a path is a weights file, or a folder as XTuner writes them; a run folder is neither."""
    if path.suffix in (".pth", ".pt", ".bin"):
        return True
    return path.is_dir() and (any((path / mark).exists() for mark in MARKS) or bool(_iterations(path)))


def read_xtuner(path: Path) -> XTunerFile:
    """Read an artefact of XTuner.

    Raises:
        CheckpointError: it is missing, broken or unsafe, holds no weights, or weights of no known part.
    """
    if not path.is_dir():
        loaded = read_pickle(path)
        return _from_checkpoint(path, loaded, loaded.get("state_dict", loaded) if isinstance(loaded, dict) else None)
    if (path / ZERO2_FILE).is_file():
        loaded = read_pickle(path / ZERO2_FILE)
        found = _from_checkpoint(path, loaded, loaded.get("module") if isinstance(loaded, dict) else None)
        found.notes.append(f"the 32-bit copies of DeepSpeed's optimizer (the weights are those of {ZERO2_FILE})")
        return found
    if (path / ZERO3_FILE).is_file():
        message = (
            "was written by ZeRO-3, which spreads each weight over files. Convert it with xtuner's pth_to_hf once,"
        )
        raise CheckpointError(path, f"{message} and name that folder.")
    if any((path / mark).exists() for mark in MARKS):
        return _from_folder(path)
    iterations = _iterations(path)
    if iterations:
        message = f"is a work_dir of XTuner. Name one of its checkpoints: {', '.join(map(str, iterations[-3:]))}."
        raise CheckpointError(path, message)
    raise CheckpointError(path, f"holds no weights of XTuner (looked for {', '.join(MARKS)}). Name another folder.")


def _iterations(folder: Path) -> list[Path]:
    def number(path: Path) -> int:
        digits = "".join(filter(str.isdigit, path.stem))
        return int(digits) if digits else -1

    return sorted([*folder.glob("iter_*.pth"), *folder.glob("epoch_*.pth")], key=number)


def _from_checkpoint(path: Path, loaded: Any, state: Any) -> XTunerFile:
    if not isinstance(state, dict) or not state:
        raise CheckpointError(path, "holds no state dict. Name a checkpoint of XTuner, such as iter_2181.pth.")
    found = XTunerFile(path, settings=_settings_of_config(loaded.get("meta")))
    unknown = []
    for name, tensor in state.items():
        if not isinstance(tensor, torch.Tensor):
            raise CheckpointError(path, f"'{name}' is no tensor. Name a checkpoint of XTuner, such as iter_2181.pth.")
        prefix = next((prefix for prefix in PREFIXES if name.startswith(prefix)), None)
        if prefix is None:
            unknown.append(name)
            continue
        group, start = PREFIXES[prefix]
        found.groups.setdefault(group, {})[start + name.removeprefix(prefix)] = tensor
    if unknown:
        shown = ", ".join(unknown[:3]) + (", ..." if len(unknown) > 3 else "")
        message = (
            f"{len(unknown)} weights belong to no part that XTuner trains ({shown}). Known: {', '.join(PREFIXES)}."
        )
        raise CheckpointError(path, f"{message} Name a checkpoint of XTuner.")
    return found


def _settings_of_config(meta: Any) -> dict[str, dict[str, Any]]:
    """Return rank and alpha by the config that mmengine stores as text; nothing where it cannot be read."""
    text = meta.get("cfg") if isinstance(meta, dict) else None
    if not isinstance(text, str):
        return {}
    try:
        model = read_python_config(text, "meta.cfg").values.get("model")
    except MMTuneError:
        return {}
    if not isinstance(model, dict):
        return {}
    return {group: _numbers(model[key]) for key, group in LORA_KEYS.items() if isinstance(model.get(key), dict)}


def _numbers(lora: dict[str, Any]) -> dict[str, Any]:
    return {key: lora[key] for key in ("r", "lora_alpha") if isinstance(lora.get(key), int | float)}


def _from_folder(path: Path) -> XTunerFile:
    found = XTunerFile(path)
    if (path / "projector").is_dir():
        found.groups["projector"] = dict(read_weights(path / "projector"))
    folders = {path / name: group for name, group in ADAPTER_FOLDERS.items() if (path / name).is_dir()}
    if (path / "adapter_config.json").is_file():
        folders[path] = "llm_adapter"
    for folder, group in folders.items():
        found.settings[group] = _numbers(read_json(folder / "adapter_config.json"))
        found.groups[group] = _adapter_weights(folder)
    for name, key in WHOLE_MODELS.items():
        if (path / name / "config.json").is_file():
            found.notes.append(f"the whole model in {path / name} (name that folder as {key} to use it)")
    return found


def _adapter_weights(folder: Path) -> Tensors:
    pickled = folder / "adapter_model.bin"
    if not pickled.is_file():
        return read_tensors(folder / "adapter_model.safetensors")
    weights = read_pickle(pickled)
    if not isinstance(weights, dict) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise CheckpointError(pickled, "holds no tensors by name. Convert the checkpoint again.")
    return weights
