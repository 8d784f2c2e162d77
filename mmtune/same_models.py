"""Whether runs stand on the same models, so that they can share them or become one. Nothing is loaded here."""

from pathlib import Path
from typing import Any

from mmtune.errors import CheckpointError
from mmtune.run_folder import VERSIONS_FILE, read_config, read_json

LLM_KEYS = ("chat_template",)
NUMBER_KEYS = ("quantization", "double_quantization", "dtype")
VISION_KEYS = ("source", "feature_layer", "image_size", "grid")


def require_same_llm(folder: Path, first: Path) -> None:
    """Check that two runs have the same language model and chat template.

    Raises:
        CheckpointError: they do not.
    """
    _require_same_base(folder, first, "llm")
    _require_same_keys(folder, first, "llm", LLM_KEYS)


def require_same_numbers(folder: Path, first: Path) -> None:
    """Check that two runs hold their language model's weights as the same numbers: 4 bits or not, in which dtype.

    Raises:
        CheckpointError: they do not.
    """
    _require_same_keys(folder, first, "llm", NUMBER_KEYS)


def require_same_vision(folder: Path, first: Path) -> None:
    """Check that two runs see with the same encoder, or that both are for text.

    Raises:
        CheckpointError: they do not.
    """
    sees, first_sees = (read_config(run).model.vision is not None for run in (folder, first))
    if sees != first_sees:
        blind = first if sees else folder
        raise CheckpointError(folder, f"cannot go with {first}: {blind} has no vision encoder. Take runs that all see.")
    if not sees:
        return
    _require_same_keys(folder, first, "vision", VISION_KEYS)
    if not _require_same_base(folder, first, "vision"):  # no hash where open_clip's cache holds the weights
        _require_same_keys(folder, first, "vision", ("name", "pretrained"))


def _require_same_base(folder: Path, first: Path, part: str) -> bool:
    """Compare the hashes of a base model; return whether both were recorded."""
    ours, theirs = (read_json(run / VERSIONS_FILE)["base_models"].get(part) for run in (folder, first))
    if ours is None or theirs is None:
        return False
    if ours["hash"] != theirs["hash"]:
        message = f"was trained on another {part} ({ours['name']}, hash {ours['hash'][:12]}) than {first}"
        raise CheckpointError(
            folder, f"{message} ({theirs['name']}, hash {theirs['hash'][:12]}). Take runs on one model."
        )
    return True


def _require_same_keys(folder: Path, first: Path, part: str, keys: tuple[str, ...]) -> None:
    ours, theirs = (_section(run, part) for run in (folder, first))
    for key in keys:
        one, other = (getattr(section, key) for section in (ours, theirs))
        if one != other:
            message = f"has model.{part}.{key}: {one}, and {first} has {other}."
            raise CheckpointError(folder, f"{message} Take runs in which it is the same.")


def _section(folder: Path, part: str) -> Any:
    model = read_config(folder).model
    return model.llm if part == "llm" else model.vision
