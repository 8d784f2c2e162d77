"""Features of a frozen vision encoder, computed once for each image and kept on disk, memory-mapped.

A row belongs to the content of an image file, whatever its name; the folder belongs to one encoder with one
preprocessing. An image whose file has changed is looked at again, so features of another picture are never served.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock

from mmtune.conversation import ImageSlot
from mmtune.data.image_bytes import read_bytes
from mmtune.data.images import ImageTransform
from mmtune.data.part import Part
from mmtune.errors import DataError
from mmtune.hashing import value_hash
from mmtune.sizes import gib

DIGEST_BYTES = 16
BATCH_IMAGES = 16
Encode = Callable[[torch.Tensor], torch.Tensor]
Progress = Callable[[int, int], None]
Announce = Callable[[int, int, Path, int], None]


@dataclass(frozen=True)
class FeatureShape:
    """The features of one image: float[num_tokens, width] of a type.

    Attributes:
        num_tokens: vectors of an image.
        width: of each.
        dtype: as the encoder computes them.
    """

    num_tokens: int
    width: int
    dtype: torch.dtype

    @property
    def num_bytes(self) -> int:
        """Bytes of one image."""
        return self.num_tokens * self.width * self.dtype.itemsize


class FeatureStore:
    """Rows of features on disk.

    Args:
        folder: of one encoder with one preprocessing; made where it does not exist.
        shape: of a row.
    """

    def __init__(self, folder: Path, shape: FeatureShape):
        self.folder, self.shape = folder, shape
        folder.mkdir(parents=True, exist_ok=True)
        self.rows_path, self.digests_path = folder / "features.bin", folder / "digests.bin"

    def __reduce__(self) -> tuple[object, ...]:
        return FeatureStore, (self.folder, self.shape)

    def row(self, number: int) -> torch.Tensor:
        """Return the features of one image: float[num_tokens, width]."""
        with self.rows_path.open("rb") as file:
            file.seek(number * self.shape.num_bytes)
            raw = bytearray(file.read(self.shape.num_bytes))
        return torch.frombuffer(raw, dtype=self.shape.dtype).reshape(self.shape.num_tokens, self.shape.width)

    def known(self) -> dict[bytes, int]:
        """Return the digest of each image that has a row.

        Rows without a digest, left by an interrupted run, are cut off.
        """
        digests = self.digests_path.read_bytes() if self.digests_path.is_file() else b""
        num_rows = len(digests) // DIGEST_BYTES
        if self.rows_path.is_file():
            if self.rows_path.stat().st_size < num_rows * self.shape.num_bytes:
                raise DataError(self.folder, "cached features are damaged. Delete the folder; they are made again.")
            os.truncate(self.rows_path, num_rows * self.shape.num_bytes)
        elif num_rows:
            raise DataError(self.folder, "cached features are missing. Delete the folder; they are made again.")
        return {digests[i * DIGEST_BYTES : (i + 1) * DIGEST_BYTES]: i for i in range(num_rows)}

    def add(self, digests: Sequence[bytes], features: torch.Tensor) -> None:
        """Append rows float[N, num_tokens, width]; their digests come after them."""
        assert features.dtype == self.shape.dtype
        assert features.shape[1:] == (self.shape.num_tokens, self.shape.width)
        with self.rows_path.open("ab") as file:
            file.write(features.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        with self.digests_path.open("ab") as file:
            file.write(b"".join(digests))


class PartFeatures:
    """The rows of a part's distinct images.

    Args:
        store: where the rows are.
        part: whose images they are.
        rows: int64[num images] row of each, -1 where it was not asked for.
        stamps: int64[num images, 2] size and time of each file when its row was found.
    """

    def __init__(self, store: FeatureStore, part: Part, rows: np.ndarray, stamps: np.ndarray):
        self.store, self.part, self.rows, self.stamps = store, part, rows, stamps

    def __call__(self, image_id: int) -> torch.Tensor:
        """Return the features of a distinct image: float[num_tokens, width].

        Raises:
            ValueError: its file has changed since the run began.
        """
        if self.part.stamp(image_id) != tuple(self.stamps[image_id].tolist()):
            name = self.part.store.image(image_id).path
            raise ValueError(f"Image {name:.200} has changed since its features were cached. Start the run again.")
        return self.store.row(int(self.rows[image_id]))


def cache_features(
    part: Part,
    wanted: np.ndarray,
    store: FeatureStore,
    transform: ImageTransform,
    encode: Encode,
    announce: Announce,
    progress: Progress,
) -> PartFeatures:
    """Compute what is missing of the features of a part's images.

    Args:
        part: the source.
        wanted: int64[N] its distinct images that are needed.
        store: where rows are kept.
        transform: from image to pixels.
        encode: from pixels float[N, 3, H, W] to features float[N, num_tokens, width].
        announce: told images to compute, their bytes, the folder and its free bytes, before anything is written.
        progress: told how many images are done, and of how many.

    Raises:
        DataError: the disk has too little space, the store is damaged, or an image cannot be read.
    """
    with FileLock(str(store.folder / "lock")):
        known = store.known()
        stamps, name = part.stamps(wanted), f"rows-{value_hash([part.images.root, store.folder.name])[:16]}.bin"
        kept = part.store.image_table(name, 3)  # stamp and row of each image, so that files are not read again
        is_same = (kept[:, :2] == stamps).all(1) & stamps.any(1) & (kept[:, 2] < len(known))
        rows = np.where(is_same, kept[:, 2], -1)
        digests = {number: _digest(part.locate(number)) for number in wanted.tolist() if rows[number] < 0}
        missing: dict[bytes, int] = {}
        for number, digest in digests.items():
            if digest not in known:
                missing.setdefault(digest, number)
        if missing:
            num_bytes, free = len(missing) * store.shape.num_bytes, shutil.disk_usage(store.folder).free
            announce(len(missing), num_bytes, store.folder, free)
            if num_bytes > free:
                sizes = f"{gib(num_bytes)}, {gib(free)} are free"
                message = f"too little space for the features of {len(missing)} images ({sizes})."
                raise DataError(store.folder, f"{message} Set data.cache_vision_features=false, or MMTUNE_CACHE.")
            _compute(part, missing, store, transform, encode, progress)
            known = store.known()
        for number, digest in digests.items():
            rows[number] = known[digest]
        part.store.keep_image_table(name, np.column_stack([stamps, rows]))
    return PartFeatures(store, part, rows, stamps)


@torch.no_grad()
def _compute(
    part: Part,
    missing: dict[bytes, int],
    store: FeatureStore,
    transform: ImageTransform,
    encode: Encode,
    progress: Progress,
) -> None:
    pairs = list(missing.items())
    for start in range(0, len(pairs), BATCH_IMAGES):
        batch = pairs[start : start + BATCH_IMAGES]
        pixels = torch.stack([transform.open(part.locate(number)) for _, number in batch])
        store.add([digest for digest, _ in batch], encode(pixels))
        progress(start + len(batch), len(pairs))


def _digest(slot: ImageSlot) -> bytes:
    return hashlib.blake2b(read_bytes(slot), digest_size=DIGEST_BYTES).digest()
