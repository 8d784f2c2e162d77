"""Write records and their images as WebDataset shards: tar files whose bytes depend on the data alone.

A sample is `00000000.json`, the record, and `00000000.jpg`, its image, or `00000000.0.jpg`, `00000000.1.jpg` and so on
where `image` is a list. In the json `image` names these members, `source_image` what the record named. Images are
copied unchanged. Text has the json alone. No WebDataset library is needed to write.
"""

import io
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mmtune.data.formats import parse_record
from mmtune.data.makers.record_files import IMAGE_SUFFIXES, cannot_be_written, image_paths
from mmtune.data.record import Record, to_line
from mmtune.data.records import read_records
from mmtune.errors import DataError

TAR_BLOCK = 512


class Member(NamedTuple):
    """One file of a shard."""

    name: str
    data: bytes


@dataclass
class Shards:
    """What was written.

    Attributes:
        paths: the shards in order.
        num_read: records of the data file.
        num_written: records in the shards.
        num_images: images in the shards.
        skipped: (place, reason) of each record left out.
    """

    paths: list[Path]
    num_read: int
    num_written: int
    num_images: int
    skipped: list[tuple[str, str]]


class _ShardWriter:
    """Fills one tar after another; a shard has its name only when it is whole."""

    def __init__(self, folder: Path, prefix: str, max_bytes: int, max_records: int):
        self.folder, self.prefix, self.max_bytes, self.max_records = folder, prefix, max_bytes, max_records
        self.paths: list[Path] = []
        self.tar: tarfile.TarFile | None = None
        self.num_bytes = self.num_records = 0

    def write(self, members: list[Member]) -> None:
        size = sum(TAR_BLOCK + -(-len(member.data) // TAR_BLOCK) * TAR_BLOCK for member in members)
        is_full = self.num_bytes + size > self.max_bytes or self.num_records == self.max_records
        if self.tar is None or is_full:
            self.close()
            self.paths.append(self.folder / f"{self.prefix}-{len(self.paths):06d}.tar")
            self.tar = tarfile.TarFile(_partial(self.paths[-1]), "w", format=tarfile.USTAR_FORMAT)
        for member in members:
            info = tarfile.TarInfo(member.name)  # mtime, uid and gid are 0, the owner has no name
            info.size, info.mode = len(member.data), 0o644
            self.tar.addfile(info, io.BytesIO(member.data))
        self.num_bytes += size
        self.num_records += 1

    def close(self) -> None:
        if self.tar is not None:
            self.tar.close()
            _partial(self.paths[-1]).replace(self.paths[-1])
            self.tar, self.num_bytes, self.num_records = None, 0, 0

    def abandon(self) -> None:
        """Remove what was written: some shards of a data file look like all of it."""
        if self.tar is not None:
            with suppress(OSError):
                self.tar.close()
        for path in self.paths:
            for written in (path, _partial(path)):
                with suppress(OSError):
                    written.unlink(missing_ok=True)


def _partial(path: Path) -> Path:
    return path.with_name(path.name + ".partial")


def write_shards(
    source: Path,
    image_folder: Path,
    output_folder: Path,
    *,
    prefix: str = "shard",
    max_bytes: int = 500_000_000,
    max_records: int = 10_000,
    skip_bad_records: bool = False,
    overwrite: bool = False,
) -> Shards:
    """Write a data file and its images as shards.

    Args:
        source: a JSON array or JSON lines in any format of `mmtune.data.formats`.
        image_folder: what image paths are relative to.
        output_folder: made where it is missing.
        prefix: shards are `{prefix}-000000.tar` and on.
        max_bytes: a shard grows to at most this, but for a single record that is larger.
        max_records: records of a shard at most.
        skip_bad_records: list a bad record or a missing image instead of raising.
        overwrite: replace shards of this prefix.

    Raises:
        DataError: a record is bad, an image is missing, shards exist already, or one cannot be written. No shard is
            left then.
    """
    writer = _ShardWriter(output_folder, prefix, max_bytes, max_records)
    shards = Shards(writer.paths, 0, 0, 0, [])
    try:
        _make_room(output_folder, prefix, overwrite)
        for record in read_records(source):
            shards.num_read += 1
            try:
                members = sample_members(record, image_folder, shards.num_written)
            except DataError as error:
                if not skip_bad_records:
                    raise
                shards.skipped.append((error.place, error.message))
                continue
            writer.write(members)
            shards.num_written += 1
            shards.num_images += len(members) - 1
        writer.close()
    except BaseException as error:
        writer.abandon()
        if isinstance(error, OSError):
            raise cannot_be_written(output_folder, error) from None
        raise
    return shards


def _make_room(folder: Path, prefix: str, overwrite: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    old = sorted(folder.glob(f"{prefix}-*.tar"))
    if old and not overwrite:
        mend = "Name another folder or --prefix, or give --overwrite."
        raise DataError(folder, f"holds {len(old)} shards of this name already, such as {old[0].name}. {mend}")
    for path in old:
        path.unlink()


def sample_members(record: Record, image_folder: Path, number: int) -> list[Member]:
    """Return the files of one sample: the record, then its images in order.

    Raises:
        DataError: the record breaks its format, or an image cannot be read.
    """
    parse_record(record)
    paths = image_paths(record)
    key = f"{number:08d}"
    images = []
    where = "image" if record.value.get("image") else "images"
    is_list = isinstance(record.value.get(where), list)
    for index, path in enumerate(paths):
        try:
            data = (image_folder / path).read_bytes()
        except OSError as error:
            place = (image_folder / path).resolve()
            mend = "Mend the path or --image-folder."
            raise DataError(record.place, f"image {place!s:.300} cannot be read: {error.strerror}. {mend}") from None
        suffix = Path(path).suffix.lower()
        if suffix not in IMAGE_SUFFIXES:
            known = ", ".join(IMAGE_SUFFIXES)
            reason = f"image {path:.300} has no suffix that WebDataset readers decode. Known: {known}. Rename it."
            raise DataError(record.place, reason)
        images.append(Member(f"{key}.{index}{suffix}" if is_list else f"{key}{suffix}", data))
    value = record.value
    if images:
        names = [image.name for image in images]
        value = value | {where: names if is_list else names[0], "source_image": value[where]}
    return [Member(f"{key}.json", to_line(value).encode()), *images]


def check_shards(shards: Shards, source: Path, image_folder: Path) -> int:
    """Read the shards again and compare them with the data file and the images, byte for byte.

    Returns:
        How many records were compared.

    Raises:
        DataError: the first difference.
    """
    skipped = {place for place, _ in shards.skipped}
    found = _members_of(shards.paths)
    number = 0
    for record in read_records(source):
        if record.place in skipped:
            continue
        for expected in sample_members(record, image_folder, number):
            path, member = next(found, (shards.paths[-1], None))
            if member != expected:
                got = "nothing" if member is None else f"another {member.name}"
                reason = f"{expected.name} of {record.place} was expected, {got} was found. Write the shards again."
                raise DataError(path, reason)
        number += 1
    if extra := next(found, None):
        raise DataError(extra[0], f"{extra[1].name} is in no record of {source}. Write the shards again.")
    return number


def _members_of(paths: list[Path]) -> Iterator[tuple[Path, Member]]:
    for path in paths:
        try:
            with tarfile.open(path) as tar:
                for info in tar:
                    file = tar.extractfile(info)
                    yield path, Member(info.name, file.read() if file else b"")
        except (OSError, tarfile.TarError) as error:
            raise DataError(path, f"cannot be read again: {error}. Write the shards again.") from None
