"""Encoded samples on disk, memory-mapped: written once by `store_writer.py`, read at random by any process.

An image stands as one token here, and the supervised spans as their bounds, so that a set of 665,298 dialogues is
about as large as its JSON file. No JSON is parsed here and no image opened.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mmtune.conversation import IGNORE_INDEX, IMAGE_TOKEN_ID, ImageSlot, Sample
from mmtune.data.finding import Finding
from mmtune.errors import DataError

FACTS_FILE = "facts.json"
PROBLEMS_FILE = "problems.jsonl"
WARNINGS_FILE = "warnings.jsonl"
IMAGES_FILE = "images.bin"
WHOLE_FILE = -1

ARRAYS = {
    "tokens": "<i4",  # ids of all samples, one IMAGE_TOKEN_ID an image
    "token_ends": "<i8",  # of each sample in `tokens`
    "span_bounds": "<i4",  # start and end of each supervised span, counted in the sample's own `tokens`
    "span_ends": "<i8",  # of each sample in `span_bounds`
    "lengths": "<i4",  # of each sample, images at their full number of tokens
    "num_supervised": "<i4",
    "num_cut": "<i4",
    "lines": "<i8",
    "files": "<i4",  # of each sample: an index of facts["files"]
    "question_hashes": "<u8",  # of the record's first question with its images
    "answer_hashes": "<u8",  # of its first answer
    "record_hashes": "<u8",  # of the whole record
    "image_ids": "<i4",  # images of all samples: indices of the four arrays below
    "image_ends": "<i8",  # of each sample in `image_ids`
    "path_bytes": "<u1",  # UTF-8 of each distinct image's path
    "path_ends": "<i8",
    "image_offsets": "<i8",
    "image_sizes": "<i8",  # WHOLE_FILE, or bytes from the offset
}
"""Name of each array file -> its type."""


class SampleStore:
    """A finished store. Its arrays are memory-mapped: processes share their pages, and a worker opens them anew.

    Args:
        folder: that a `StoreWriter` has closed.
        source: the path of the data as the user names it now, for messages: equal files share a store.
    """

    def __init__(self, folder: Path | str, source: str):
        self.folder, self.source = Path(folder), source
        self.facts: dict[str, Any] = json.loads((self.folder / FACTS_FILE).read_text(encoding="utf-8"))
        self.num_image_tokens: int = self.facts["num_image_tokens"]
        self.arrays = {name: _mapped(self.folder / f"{name}.bin", kind) for name, kind in ARRAYS.items()}

    def __reduce__(self) -> tuple[Any, ...]:
        return SampleStore, (self.folder, self.source)

    def __len__(self) -> int:
        return len(self.arrays["lengths"])

    @property
    def num_distinct_images(self) -> int:
        """How many different images the samples show."""
        return len(self.arrays["path_ends"])

    @property
    def num_images(self) -> np.ndarray:
        """How many images each sample shows: int64[S]."""
        return np.diff(self.arrays["image_ends"], prepend=0)

    def ids_and_labels(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return `input_ids` int32[T] and `labels` int32[T] of a sample, images at their full number of tokens."""
        ids = self._of("tokens", "token_ends", index)
        labels = np.full_like(ids, IGNORE_INDEX)
        for start, end in self._of("span_bounds", "span_ends", index).reshape(-1, 2):
            labels[start:end] = ids[start:end]
        times = np.where(ids == IMAGE_TOKEN_ID, self.num_image_tokens, 1)
        return ids.repeat(times), labels.repeat(times)

    def samples_hash(self, number: int) -> str:
        """Return a hash of the first samples, of what they say and how long they are; shorter stores have another."""
        digest = hashlib.sha256()
        for name in ("record_hashes", "lengths"):
            digest.update(self.arrays[name][:number].tobytes())
        return digest.hexdigest()

    def image_ids(self, index: int) -> np.ndarray:
        """Return which of the distinct images a sample shows, in the order of its slots."""
        return self._of("image_ids", "image_ends", index)

    def image_table(self, name: str, num_columns: int) -> np.ndarray:
        """Return numbers of each distinct image that were kept beside the store: int64[num images, columns].

        Zeros where there are none, or of another shape.
        """
        path, shape = self.folder / name, (self.num_distinct_images, num_columns)
        table = np.fromfile(path, np.int64) if path.is_file() else np.empty(0, np.int64)
        return table.reshape(shape) if table.size == shape[0] * shape[1] else np.zeros(shape, np.int64)

    def keep_image_table(self, name: str, table: np.ndarray) -> None:
        """Keep what `image_table` returns; written beside its place and renamed, for whoever reads it meanwhile."""
        beside = self.folder / f"{name}.{os.getpid()}"
        table.astype(np.int64).tofile(beside)
        os.replace(beside, self.folder / name)

    def images_of(self, samples: np.ndarray) -> np.ndarray:
        """Return which distinct images some samples show: int64[N], in order."""
        return np.unique(self.arrays["image_ids"][np.isin(self.image_owners(), samples)])

    def image_owners(self) -> np.ndarray:
        """Return the sample that each entry of `image_ids` belongs to: int64[all images of all samples]."""
        return np.repeat(np.arange(len(self)), self.num_images)

    def image(self, image_id: int) -> ImageSlot:
        """Return where a distinct image is; its path is the record's, or the store's own file."""
        path = self._of("path_bytes", "path_ends", image_id).tobytes().decode(errors="surrogatepass")
        size = int(self.arrays["image_sizes"][image_id])
        offset = int(self.arrays["image_offsets"][image_id])
        return ImageSlot(path or str(self.folder / IMAGES_FILE), offset, None if size == WHOLE_FILE else size)

    def sample(self, index: int) -> Sample:
        """Return one sample as it was added."""
        ids, labels = self.ids_and_labels(index)
        slots = tuple(self.image(image_id) for image_id in self.image_ids(index))
        num_cut = int(self.arrays["num_cut"][index])
        return Sample(ids.tolist(), labels.tolist(), slots, self.place(index), num_cut)

    def place(self, index: int) -> str:
        """Return `file:line` of a sample's record."""
        file, line = self.position(index)
        return f"{file}:{line}"

    def position(self, index: int) -> tuple[str, int]:
        """Return file and line of a sample's record."""
        file = self.facts["files"][self.arrays["files"][index]]
        return file or self.source, int(self.arrays["lines"][index])

    def problems(self) -> Iterator[Finding]:
        """Yield the records that are left out."""
        return self._findings(PROBLEMS_FILE)

    def warnings(self) -> Iterator[Finding]:
        """Yield what is odd about the records that are kept."""
        return self._findings(WARNINGS_FILE)

    def _findings(self, name: str) -> Iterator[Finding]:
        with (self.folder / name).open(encoding="utf-8") as file:
            for line in file:
                finding = Finding(**json.loads(line))
                yield finding if finding.file else replace(finding, file=self.source)

    def _of(self, name: str, ends_name: str, index: int) -> np.ndarray:
        ends = self.arrays[ends_name]
        return self.arrays[name][ends[index - 1] if index else 0 : ends[index]]


def _mapped(path: Path, kind: str) -> np.ndarray:
    size = path.stat().st_size
    if size % np.dtype(kind).itemsize:
        raise DataError(path, "a prepared data set is damaged. Delete its folder; it is made again.")
    return np.asarray(np.memmap(path, kind, "r")) if size else np.empty(0, kind)
