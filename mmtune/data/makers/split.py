"""Split a data file into training and held-out records, so that no image and no question is on both sides.

Records that share an image, directly or through other records, form one group and stay together; so do records of
text alone with the same first question. Groups are drawn by a hash of the seed and the group, so that the same
records fall on the same side in another order of the file.
"""

import hashlib
import posixpath
from dataclasses import dataclass, field
from pathlib import Path

from mmtune.conversation import Conversation, Document
from mmtune.data.formats import parse_record
from mmtune.data.makers.record_files import RecordWriter
from mmtune.data.record import Record
from mmtune.data.records import read_records
from mmtune.errors import DataError
from mmtune.hashing import file_hash


@dataclass
class Groups:
    """Sets of keys that belong together (a union-find), and how many records each set has.

    Attributes:
        parents: key -> another key of its set; a root maps to itself.
        sizes: root -> number of records.
        names: root -> the least key of its set, which does not depend on the file's order.
    """

    parents: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    def root(self, key: str) -> str:
        """Return the key that stands for the set of `key`."""
        while self.parents[key] != key:
            self.parents[key] = self.parents[self.parents[key]]  # halves the way for the next time
            key = self.parents[key]
        return key

    def add(self, keys: list[str]) -> str:
        """Count one record, join all its keys in one set, and return one of them."""
        for key in keys:
            if key not in self.parents:
                self.parents[key] = self.names[key] = key
                self.sizes[key] = 0
        first, *others = {self.root(key): None for key in keys}
        for other in others:
            self.parents[other] = first
            self.sizes[first] += self.sizes.pop(other)
            self.names[first] = min(self.names[first], self.names.pop(other))
        self.sizes[first] += 1
        return first


@dataclass(frozen=True)
class Split:
    """What was split.

    Attributes:
        num_records: all of them; each is on one side.
        num_held_out: records on the held-out side.
        num_groups: groups of records that stay together.
        num_held_out_groups: those of them that are held out.
        largest_group: records of the largest group.
        num_twins: image names beyond the first of each content; None where contents were not compared.
    """

    num_records: int
    num_held_out: int
    num_groups: int
    num_held_out_groups: int
    largest_group: int
    num_twins: int | None


class _Keys:
    """Names what a record must share its side with: its images, or the first question."""

    def __init__(self, image_folder: Path | None):
        self.image_folder = image_folder
        self.contents: dict[str, str] = {}  # path -> hash of the file

    def of(self, record: Record) -> list[str]:
        conversation: Conversation | Document = parse_record(record)
        if isinstance(conversation, Document) or not conversation.images:
            return ["text:" + " ".join(_first_text(conversation).split()).casefold()]
        paths = [posixpath.normpath(path.replace("\\", "/")) for path in conversation.images]
        if self.image_folder is None:
            return ["image:" + path for path in paths]
        return ["content:" + self._content(path, self.image_folder, record.place) for path in paths]

    def _content(self, path: str, folder: Path, place: str) -> str:
        if path not in self.contents:
            try:
                self.contents[path] = file_hash(folder / path)
            except OSError as error:
                reason = f"image {folder / path} cannot be read: {error.strerror}. Mend the path or --image-folder."
                raise DataError(place, reason) from None
        return self.contents[path]


def _first_text(conversation: Conversation | Document) -> str:
    if isinstance(conversation, Document):
        return conversation.text
    return next(message.text for message in conversation.messages if message.role == "user")


def split_records(
    source: Path | str,
    train_path: Path | str,
    held_out_path: Path | str,
    *,
    held_out: float | int,
    seed: int = 0,
    image_folder: Path | None = None,
    overwrite: bool = False,
) -> Split:
    """Write the records of a file to two files, in their order.

    Args:
        source: a JSON array or JSON lines.
        train_path: what stays, `.json` or `.jsonl`.
        held_out_path: what is held out.
        held_out: a share between 0 and 1 (float), or a number of records (int). Groups are never torn, so at most
            this many are held out, but for a single group that is larger.
        seed: draws the groups.
        image_folder: compare images by content under this folder; None compares names.
        overwrite: replace files that exist.

    Raises:
        DataError: a record is bad, an image cannot be read, nothing can be split, or a file cannot be written.
    """
    train = RecordWriter(train_path, source=source, overwrite=overwrite)
    held = RecordWriter(held_out_path, source=source, overwrite=overwrite)
    keys, groups = _Keys(image_folder), Groups()
    first_keys = []
    for record in read_records(source):
        first_keys.append(groups.add(keys.of(record)))
    num_records = len(first_keys)
    chosen = _draw(groups, held_out if isinstance(held_out, int) else held_out * num_records, seed, Path(source))
    with train, held:
        for record, key in zip(read_records(source), first_keys, strict=True):
            (held if groups.root(key) in chosen else train).write(record.value)
    twins = len(keys.contents) - len(set(keys.contents.values())) if image_folder is not None else None
    return Split(num_records, held.num_records, len(groups.sizes), len(chosen), max(groups.sizes.values()), twins)


def _draw(groups: Groups, wanted: float, seed: int, source: Path) -> set[str]:
    """Return the roots that are held out: in the order of their hashes, as many as fit."""
    if len(groups.sizes) < 2:
        raise DataError(source, "all records share images or questions, so nothing can be held out. Add other data.")
    order = sorted(groups.sizes, key=lambda root: hashlib.sha256(f"{seed}:{groups.names[root]}".encode()).digest())
    chosen: set[str] = set()
    num_held_out = 0
    for root in order:
        if num_held_out + groups.sizes[root] <= wanted and len(chosen) < len(order) - 1:
            chosen.add(root)
            num_held_out += groups.sizes[root]
    return chosen or {min(order, key=groups.sizes.__getitem__)}
