"""Everything that can be wrong with the data, found before a model loads: bad records, bad images, odd records.

Records were read and encoded by `prepare.py`; here the images that the samples of an epoch show are opened, and
records are compared with each other. Images that passed once are not opened again while their size and time stay.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np

from mmtune.conversation import ImageSlot
from mmtune.data.finding import Finding
from mmtune.data.image_check import check_images
from mmtune.data.part import Part
from mmtune.data.sample_store import IMAGES_FILE, SampleStore
from mmtune.hashing import value_hash

ImageCheck = Literal["decode", "header", "none"]
LEVELS = {"none": 0, "header": 1, "decode": 2}
Progress = Callable[[int, int], None]
CHUNK_IMAGES = 16_384


@dataclass
class DataReport:
    """What became of the records: `num_records == num_good_records + len(problems)` always holds.

    Attributes:
        num_records: records read.
        num_samples: samples of an epoch, after mixing.
        num_cut: of these, cut by `max_length`.
        problems: records left out, each with its reason.
        sources: counts of each source.
    """

    num_records: int = 0
    num_samples: int = 0
    num_cut: int = 0
    problems: list[Finding] = field(default_factory=list)
    sources: list[dict[str, Any]] = field(default_factory=list)

    def joined(self, other: "DataReport") -> "DataReport":
        """Return the report of two data sets together."""
        return DataReport(
            self.num_records + other.num_records,
            self.num_samples + other.num_samples,
            self.num_cut + other.num_cut,
            self.problems + other.problems,
            self.sources + other.sources,
        )

    @property
    def num_good_records(self) -> int:
        """Records that can be trained."""
        return self.num_records - len(self.problems)


def bad_image_samples(part: Part, samples: np.ndarray, level: ImageCheck, progress: Progress) -> dict[int, str]:
    """Check the images of some samples of a part.

    Args:
        part: the source.
        samples: int64[S] numbers of its samples; may repeat.
        level: `decode` opens every image whole; `header` reads its size and its end; `none` looks whether the file
            is there and inside the image folder.
        progress: told how many images are done, and of how many.

    Returns:
        Sample -> "reason. mend." of its first bad image.
    """
    bad = _bad_images(part, part.store.images_of(samples), level, progress)
    if not bad:
        return {}
    image_ids, owners = part.store.arrays["image_ids"], part.store.image_owners()
    found: dict[int, str] = {}
    for entry in np.flatnonzero(np.isin(image_ids, list(bad)) & np.isin(owners, samples)).tolist():
        found.setdefault(int(owners[entry]), bad[int(image_ids[entry])])
    return found


def _bad_images(part: Part, wanted: np.ndarray, level: ImageCheck, progress: Progress) -> dict[int, str]:
    passed = PassedImages(part, LEVELS[level])
    bad: dict[int, str] = {}
    pending: list[tuple[int, ImageSlot]] = []
    for number in passed.changed(wanted).tolist():
        try:
            pending.append((number, part.locate(number)))
        except ValueError as error:
            bad[number] = str(error)
    for start in range(0, len(pending), CHUNK_IMAGES):
        chunk = pending[start : start + CHUNK_IMAGES]
        found: dict[int, str] = {}
        if level != "none":
            slots = [slot for _, slot in chunk]
            tell = partial(_tell, progress, start, len(pending))
            found = check_images(slots, decode=level == "decode", progress=tell)
        bad |= {chunk[index][0]: f"image {_name(part, chunk[index][0])}: {message}" for index, message in found.items()}
        passed.add([number for index, (number, _) in enumerate(chunk) if index not in found])
    return bad


def _name(part: Part, number: int) -> str:
    """What the record calls an image."""
    slot = part.store.image(number)
    if slot.path == str(part.store.folder / IMAGES_FILE):
        return "that the record holds"
    return f"{slot.path:.200}" + (f" at byte {slot.offset}" if slot.size is not None else "")


def _tell(progress: Progress, before: int, total: int, count: int) -> None:
    progress(before + count, total)


class PassedImages:
    """Which images of a part passed the check, with the size and time that their files had then.

    Kept beside the store, one file for each image folder and level; a file that is changed is checked again.
    """

    def __init__(self, part: Part, level: int):
        self.part = part
        self.name = f"passed-{value_hash([part.images.root, part.images.follow_links, level])[:16]}.bin"
        self.known = part.store.image_table(self.name, 2)
        self.now = np.zeros_like(self.known)

    def changed(self, numbers: np.ndarray) -> np.ndarray:
        """Return those of the images that never passed, or whose files differ from when they did."""
        self.now = self.part.stamps(numbers)
        is_same = (self.known == self.now).all(1) & self.now.any(1)
        return numbers[~is_same[numbers]]

    def add(self, numbers: list[int]) -> None:
        """Remember on disk that images passed, as they were when `changed` looked."""
        self.known[numbers] = self.now[numbers]
        self.part.store.keep_image_table(self.name, self.known)


def odd_records(stores: Sequence[SampleStore]) -> Iterator[Finding]:
    """Yield records that repeat another, or answer the same question about the same image differently.

    Both can be meant: they are warnings. Within one record (a long document) nothing is compared.
    """
    first = [np.flatnonzero(_starts_record(store)) for store in stores]
    position = [(store, index) for store, indices in zip(stores, first, strict=True) for index in indices.tolist()]

    def column(name: str) -> np.ndarray:
        columns = [store.arrays[name][indices] for store, indices in zip(stores, first, strict=True)]
        return np.concatenate(columns) if columns else np.empty(0, np.uint64)

    questions, answers, records = (column(name) for name in ("question_hashes", "answer_hashes", "record_hashes"))
    repeats = _earlier_twins(records)
    for index in np.flatnonzero(repeats >= 0).tolist():
        yield _odd(position, index, int(repeats[index]), "The same record stands at", "Drop one, or keep it on purpose")
    twins = _earlier_twins(questions)
    differs = (twins >= 0) & (answers != answers[twins])
    for index in np.flatnonzero(differs).tolist():
        reason = "The same question has another answer at"
        yield _odd(position, index, int(twins[index]), reason, "Keep the right one, or both on purpose")


def _starts_record(store: SampleStore) -> np.ndarray:
    lines, files = store.arrays["lines"], store.arrays["files"]
    return (np.diff(lines, prepend=-1) != 0) | (np.diff(files, prepend=-1) != 0)


def _earlier_twins(values: np.ndarray) -> np.ndarray:
    """The first position that holds the same value, -1 where that is the position itself."""
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    twins = first[inverse]
    return np.where(twins == np.arange(len(values)), -1, twins)


def _odd(position: list[tuple[SampleStore, int]], index: int, twin: int, reason: str, mend: str) -> Finding:
    (store, sample), (other, other_sample) = position[index], position[twin]
    file, line = store.position(sample)
    return Finding(file, line, f"{reason} {other.place(other_sample)}.", f"{mend}.")


def image_findings(part: Part, bad: dict[int, str]) -> list[Finding]:
    """Return the records of a part whose images are bad."""
    found = {}
    for sample, message in bad.items():
        file, line = part.store.position(sample)
        found[file, line] = Finding.of(file, line, message)
    return list(found.values())
