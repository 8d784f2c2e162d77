"""Write encoded records to the files of a new store, streamed. The layout is that of `sample_store.py`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from mmtune.conversation import IGNORE_INDEX, IMAGE_TOKEN_ID, ImageSlot, Sample
from mmtune.data.finding import Finding
from mmtune.data.record import to_line
from mmtune.data.sample_store import ARRAYS, FACTS_FILE, IMAGES_FILE, PROBLEMS_FILE, WARNINGS_FILE, WHOLE_FILE


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
        self.problems.write(to_line(vars(finding)) + "\n")

    def add_warning(self, finding: Finding) -> None:
        """List something odd about a record that is kept."""
        self.counts["num_warnings"] += 1
        self.warnings.write(to_line(vars(finding)) + "\n")

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
