"""Encoded samples on disk, memory-mapped: written once by a streaming writer, read at random by any process.

An image stands as one token here, and the supervised spans as their bounds, so that a set of 665,298 dialogues is
about as large as its JSON file. No JSON is parsed here and no image opened.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from mmtune.conversation import IGNORE_INDEX, IMAGE_TOKEN_ID, ImageSlot, Sample
from mmtune.errors import DataError

FACTS_FILE = "facts.json"
PROBLEMS_FILE = "problems.jsonl"
WARNINGS_FILE = "warnings.jsonl"
DEFAULT_MEND = "Mend the record, or leave it out."
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


@dataclass(frozen=True)
class EncodedRecord:
    """What a good record became.

    Attributes:
        samples: one for a dialogue, several for a long document.
        line: of the record in its file.
        file: of the record; empty where the source is that one file.
        hashes: uint64 of the first question with its images, of the first answer, and of everything said.
    """

    samples: Sequence[Sample]
    line: int
    file: str
    hashes: tuple[int, int, int]


@dataclass(frozen=True)
class Finding:
    """Something wrong or odd with a record.

    Attributes:
        file: the data file.
        line: of the record, from 1; 0 where it is about the whole file.
        reason: what is wrong.
        mend: what to do.
    """

    file: str
    line: int
    reason: str
    mend: str

    @classmethod
    def of(cls, file: Path | str, line: int, message: str) -> "Finding":
        """Split a message: its first sentence is the reason, the rest the mend; some reasons say it all."""
        reason, _, mend = message.partition(". ")
        return cls(str(file), line, reason.rstrip(".") + ".", mend or DEFAULT_MEND)

    @property
    def place(self) -> str:
        """`file:line`."""
        return f"{self.file}:{self.line}" if self.line else self.file

    @property
    def message(self) -> str:
        """Reason and mend."""
        return f"{self.reason} {self.mend}".strip()


class StoreWriter:
    """Appends encoded records to the files of a new store; nothing but the current batch is held.

    Args:
        folder: empty.
        num_image_tokens: ids an image takes in the samples that will come.
    """

    def __init__(self, folder: Path, num_image_tokens: int):
        self.folder, self.num_image_tokens = folder, num_image_tokens
        self.outputs = {name: (folder / f"{name}.bin").open("wb") for name in ARRAYS}
        self.images = (folder / IMAGES_FILE).open("wb")
        self.problems = (folder / PROBLEMS_FILE).open("w", encoding="utf-8")
        self.warnings = (folder / WARNINGS_FILE).open("w", encoding="utf-8")
        self.ends = dict.fromkeys(("token_ends", "span_ends", "image_ends", "path_ends"), 0)
        self.known_images: dict[tuple[str, int, int], int] = {}
        self.num_images = 0
        self.file_ids: dict[str, int] = {}
        self.counts = {"num_records": 0, "num_samples": 0, "num_bad_records": 0, "num_warnings": 0}

    def add(self, records: Sequence[EncodedRecord]) -> None:
        """Append good records."""
        self.counts["num_records"] += len(records)
        pairs = [(record, sample) for record in records for sample in record.samples]
        if not pairs:
            return
        self.counts["num_samples"] += len(pairs)
        samples = [sample for _, sample in pairs]
        self._add_tokens(samples)
        self._add_images(samples)
        self._write("num_cut", [sample.num_cut_tokens for sample in samples])
        self._write("lines", [record.line for record, _ in pairs])
        self._write("files", [self.file_ids.setdefault(record.file, len(self.file_ids)) for record, _ in pairs])
        for number, name in enumerate(("question_hashes", "answer_hashes", "record_hashes")):
            self._write(name, [record.hashes[number] for record, _ in pairs])

    def add_problem(self, finding: Finding) -> None:
        """List a record that is left out."""
        self.counts["num_records"] += 1
        self.counts["num_bad_records"] += 1
        self.problems.write(json.dumps(vars(finding)) + "\n")

    def add_warning(self, finding: Finding) -> None:
        """List something odd about a record that is kept."""
        self.counts["num_warnings"] += 1
        self.warnings.write(json.dumps(vars(finding)) + "\n")

    def close(self, content: str) -> None:
        """Finish: the facts are written last, so that a store with them is whole.

        Args:
            content: what the source's content is known by.
        """
        for output in (*self.outputs.values(), self.images, self.problems, self.warnings):
            output.close()
        facts = {
            "num_image_tokens": self.num_image_tokens,
            "files": list(self.file_ids),
            "content": content,
            **self.counts,
        }
        (self.folder / FACTS_FILE).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")

    def _add_tokens(self, samples: Sequence[Sample]) -> None:
        lengths = np.array([len(sample.input_ids) for sample in samples])
        total = int(lengths.sum())
        ids = np.fromiter(chain.from_iterable(sample.input_ids for sample in samples), np.int32, total)
        labels = np.fromiter(chain.from_iterable(sample.labels for sample in samples), np.int32, total)
        is_image = ids == IMAGE_TOKEN_ID
        kept = ~is_image | ((np.cumsum(is_image) - 1) % max(self.num_image_tokens, 1) == 0)
        compact_ends = np.cumsum(kept)[np.cumsum(lengths) - 1]
        supervised = (labels != IGNORE_INDEX)[kept]
        # No span runs on into the next sample: the first token of a sample never is supervised.
        bounds = np.flatnonzero(np.diff(supervised, prepend=False, append=False))
        owners = np.searchsorted(compact_ends, bounds[::2], side="right").repeat(2)
        starts = np.concatenate(([0], compact_ends[:-1]))
        self._write("tokens", ids[kept])
        self._write_ends("token_ends", np.diff(compact_ends, prepend=0))
        self._write("span_bounds", bounds - starts[owners])
        self._write_ends("span_ends", np.bincount(owners, minlength=len(samples)))
        self._write("lengths", lengths)
        ends = np.concatenate(([0], np.cumsum(labels != IGNORE_INDEX)[np.cumsum(lengths) - 1]))
        self._write("num_supervised", np.diff(ends))

    def _add_images(self, samples: Sequence[Sample]) -> None:
        self._write("image_ids", [self._image_id(slot) for sample in samples for slot in sample.image_slots])
        self._write_ends("image_ends", [len(sample.image_slots) for sample in samples])

    def _image_id(self, slot: ImageSlot) -> int:
        if slot.data is not None:  # kept beside the tokens; an empty path says so
            slot = ImageSlot("", self.images.tell(), self.images.write(slot.data))
        size = WHOLE_FILE if slot.size is None else slot.size
        key = (slot.path, slot.offset, size)
        if key not in self.known_images:
            self.known_images[key] = len(self.known_images)
            path = slot.path.encode(errors="surrogatepass")
            self._write("path_bytes", np.frombuffer(path, np.uint8))
            self._write_ends("path_ends", [len(path)])
            self._write("image_offsets", [slot.offset])
            self._write("image_sizes", [size])
        return self.known_images[key]

    def _write(self, name: str, values: Any) -> None:
        self.outputs[name].write(np.asarray(values, dtype=ARRAYS[name]).tobytes())

    def _write_ends(self, name: str, sizes: Any) -> None:
        ends = self.ends[name] + np.cumsum(sizes, dtype=np.int64)
        self._write(name, ends)
        self.ends[name] = int(ends[-1])


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

    def ids_and_labels(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return `input_ids` int32[T] and `labels` int32[T] of a sample, images at their full number of tokens."""
        ids = self._of("tokens", "token_ends", index)
        labels = np.full_like(ids, IGNORE_INDEX)
        for start, end in self._of("span_bounds", "span_ends", index).reshape(-1, 2):
            labels[start:end] = ids[start:end]
        times = np.where(ids == IMAGE_TOKEN_ID, self.num_image_tokens, 1)
        return ids.repeat(times), labels.repeat(times)

    def image_ids(self, index: int) -> np.ndarray:
        """Return which of the distinct images a sample shows, in the order of its slots."""
        return self._of("image_ids", "image_ends", index)

    def images_of(self, samples: np.ndarray) -> np.ndarray:
        """Return which distinct images some samples show: int64[N], in order."""
        return np.unique(self.arrays["image_ids"][np.isin(self.image_owners(), samples)])

    def image_owners(self) -> np.ndarray:
        """Return the sample that each entry of `image_ids` belongs to: int64[all images of all samples]."""
        return np.repeat(np.arange(len(self)), np.diff(self.arrays["image_ends"], prepend=0))

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
