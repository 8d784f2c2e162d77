"""Hashes of files and of values, as manifests and caches name them."""

import hashlib
import json
from pathlib import Path
from typing import Any


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file as hex, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def value_hash(value: Any) -> str:
    """Return the SHA-256 of a JSON value as hex; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def sampled_hash(folder: Path, num_blocks: int = 16, block_bytes: int = 1 << 16) -> str:
    """Return a hash of a folder's model weights, or of a weights file, as hex, from sizes and evenly spaced blocks.

    Tells two trainings of one model apart without reading gigabytes: 1 MiB a file.

    Args:
        folder: with `*.safetensors`, `*.bin`, `*.pt` and `config.json` files; or one file.
        num_blocks: blocks read of each file.
        block_bytes: size of a block.
    """
    digest = hashlib.sha256()
    paths = [folder]
    if folder.is_dir():
        names = sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", ".bin", ".pt"))
        paths = [folder / "config.json", *names]
    for path in paths:
        size = path.stat().st_size if path.is_file() else 0
        digest.update(f"{path.name if folder.is_dir() else ''}:{size}\n".encode())  # a lone file may be renamed
        if not size:
            continue
        with path.open("rb") as file:
            for number in range(num_blocks):
                file.seek(max(0, size - block_bytes) * number // (num_blocks - 1))
                digest.update(file.read(block_bytes))
    return digest.hexdigest()
