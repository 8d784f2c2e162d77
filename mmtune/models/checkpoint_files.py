"""The weight files of a model folder in the hub's layout, read tensor by tensor: safetensors or `.bin`, in one or more
shards. Which tensors a model needs is decided elsewhere.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from mmtune.errors import ModelError
from mmtune.models.json_files import read_json

LAYOUTS = (
    ("model.safetensors.index.json", "model.safetensors"),
    ("pytorch_model.bin.index.json", "pytorch_model.bin"),
)


def weight_files(folder: Path) -> list[Path]:
    """Return the files that hold a model's weights: the shards that an index names, or the single file.

    Raises:
        ModelError: the folder has no weights, the index is broken, or a shard that it names is missing.
    """
    for index_name, single_name in LAYOUTS:
        index = folder / index_name
        if index.is_file():
            return [_shard(folder, name, index) for name in _shard_names(index)]
        if (folder / single_name).is_file():
            return [folder / single_name]
    names = " or ".join(name for pair in LAYOUTS for name in pair)
    raise ModelError(str(folder), f"holds no weights (looked for {names}). Download the model again.")


def _shard_names(index: Path) -> list[str]:
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise ModelError(str(index), "has no weight_map. Download this file again.")
    return sorted(set(names.values()))


def _shard(folder: Path, name: str, index: Path) -> Path:
    path = folder / name
    if not path.is_file():
        raise ModelError(str(path), f"no such file, though {index.name} names it. Download this shard again.")
    return path


def read_weights(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield every tensor of a model folder with its name; one shard is open at a time.

    `.bin` files are read with `weights_only=True`: nothing in them is executed.

    Raises:
        ModelError: see `weight_files`; or a shard is cut off or no weight file at all.
    """
    for path in weight_files(folder):
        if path.suffix == ".safetensors":
            yield from _read_safetensors(path)
        else:
            yield from _read_bin(path).items()


def _read_safetensors(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  (the file is no dict)
                yield name, file.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise _broken(path, error) from None


def _read_bin(path: Path) -> dict[str, torch.Tensor]:
    try:
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises RuntimeError, EOFError, UnpicklingError and others
        raise _broken(path, error) from None
    return loaded


def _broken(path: Path, error: Exception) -> ModelError:
    reason = str(error).splitlines()[0][:160].rstrip(".") if str(error) else type(error).__name__
    return ModelError(
        str(path), f"broken or cut off ({path.stat().st_size} bytes): {reason}. Download this file again."
    )
