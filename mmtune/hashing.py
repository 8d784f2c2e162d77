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
    """Return a hash of a folder's model weights as hex, from sizes and evenly spaced blocks.

    Tells two trainings of one model apart without reading gigabytes: 1 MiB a file.

    Args:
        folder: with `*.safetensors`, `*.bin`, `*.pt` and `config.json` files.
        num_blocks: blocks read of each file.
        block_bytes: size of a block.
    """
    digest = hashlib.sha256()
    names = sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", ".bin", ".pt"))
    for path in [folder / "config.json", *names]:
        size = path.stat().st_size if path.is_file() else 0
        digest.update(f"{path.name}:{size}\n".encode())
        if not size:
            continue
        with path.open("rb") as file:
            for number in range(num_blocks):
                file.seek(max(0, size - block_bytes) * number // (num_blocks - 1))
                digest.update(file.read(block_bytes))
    return digest.hexdigest()
