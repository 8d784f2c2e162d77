"""Records of WebDataset tar shards: texts are read, images are only located. Knows no format of conversation.

A shard is read header by header, seeking past the images: what a record holds of an image is where its bytes stand.
"""

import json
import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from mmtune.conversation import ImageSlot
from mmtune.data.json_records import json_reason
from mmtune.data.record import MAX_RECORD_BYTES, Record
from mmtune.errors import DataError

IMAGE_ENDINGS = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm")
TEXT_ENDINGS = ("json", "txt", "caption")
BLOCK_BYTES = 512
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zX": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_MEMBER = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)")
_DIGITS = re.compile(r"(\d+)")
_META = re.compile(r"__[^/]*__($|/)")


@dataclass
class _Sample:
    """The members of a tar file that share a key, and the texts among them."""

    key: str
    images: dict[str, ImageSlot] = field(default_factory=dict)
    texts: dict[str, bytes] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    problem: str = ""


def read_tar(path: Path) -> Iterator[Record]:
    """Yield the samples of a WebDataset shard, from sample 1.

    Consecutive members with one key, the name up to the first dot of its last part, are a sample; members without an
    extension or named `__NAME__` are no samples, as in WebDataset. `json` is the record; `txt` or `caption` stands
    under `caption`; images stand under `image` as slots in the tar file.

    Args:
        path: the tar file, not compressed.

    Yields:
        The records; one with a problem for a sample that cannot be read, and one where the shard is cut off.

    Raises:
        DataError: the tar file is compressed.
        OSError: the file cannot be opened.
    """
    with path.open("rb") as file:
        start = file.read(6)
        for mark, name in COMPRESSED.items():
            if start.startswith(mark):
                message = f"is compressed with {name}, so no image in it can be reached alone. Write plain tar shards."
                raise DataError(path, message)
        file.seek(0)
        number, problem = 0, ""
        samples = _samples(file, os.path.abspath(path))
        while True:
            try:
                sample = next(samples, None)
            except tarfile.TarError as error:
                where = f" on after {number} samples" if number else ""
                problem = f"the shard cannot be read{where}: {error}. Copy the file again."
                break
            if sample is None:
                problem = "" if number else "the shard holds no samples. Leave it out."
                break
            number += 1
            yield _record(sample, path, number)
        if problem:
            yield Record(None, path, number + 1, problem)


# ---------------------------------------------------------------- members


def _samples(file: IO[bytes], tar_path: str) -> Iterator[_Sample]:
    """Yield the samples of an open tar file; the last one may be unfinished when `TarError` is raised."""
    sample: _Sample | None = None
    for member in _members(file):
        match = _MEMBER.fullmatch(member.name)
        if match is None or _META.match(member.name):
            continue
        key, ending = match[1], match[2].lower()
        if sample is None or key != sample.key:
            if sample is not None:
                yield sample
            sample = _Sample(key)
        _add(sample, ending, member, file, tar_path)
    if sample is not None:
        yield sample


def _members(file: IO[bytes]) -> Iterator[tarfile.TarInfo]:
    """Yield the files in a tar file from their headers.

    Raises:
        TarError: the tar file is cut off or broken. `tarfile` alone takes some of these for its end.
    """
    size = os.fstat(file.fileno()).st_size
    with tarfile.open(fileobj=file, mode="r:") as tar:
        while member := tar.next():
            if member.isreg():
                if not member.issparse() and member.offset_data + member.size > size:
                    raise tarfile.ReadError(f"it is cut off inside {member.name}")
                yield member
            tar.members.clear()  # type: ignore[attr-defined]  # it would keep all of them
        file.seek(tar.offset)
    end = file.read(1 << 16)
    if not end:
        raise tarfile.ReadError("its end mark is missing, so it is cut off")
    if end[:BLOCK_BYTES].strip(b"\0"):
        raise tarfile.ReadError(f"at byte {tar.offset} stands neither a member nor the end")
    if end.strip(b"\0"):
        raise tarfile.ReadError(f"more follows behind its end at byte {tar.offset}, as if tar files had been joined")


def _add(sample: _Sample, ending: str, member: tarfile.TarInfo, file: IO[bytes], tar_path: str) -> None:
    if ending in sample.images or ending in sample.texts or ending in sample.others:
        sample.problem = f"sample {sample.key} has two members '.{ending}'. Each sample needs a key of its own."
    elif member.issparse():
        sample.problem = f"{member.name} is stored as a sparse file. Write the tar file without --sparse."
    elif ending.rsplit(".", 1)[-1] in IMAGE_ENDINGS:
        sample.images[ending] = ImageSlot(tar_path, member.offset_data, member.size)
    elif ending not in TEXT_ENDINGS:
        sample.others.append(ending)
    elif member.size > MAX_RECORD_BYTES:
        sample.problem = f"{member.name} is longer than {MAX_RECORD_BYTES >> 20} MiB. Store images as members."
    else:
        file.seek(member.offset_data)
        sample.texts[ending] = file.read(member.size)


# ---------------------------------------------------------------- records


def _record(sample: _Sample, path: Path, number: int) -> Record:
    try:
        if sample.problem:
            raise ValueError(sample.problem)
        return Record(_value(sample), path, number)
    except ValueError as error:
        return Record(None, path, number, str(error))


def _value(sample: _Sample) -> dict[str, Any]:
    """The record of a sample.

    Raises:
        ValueError: its texts cannot be read, or do not fit its images.
    """
    texts = {ending: _text(sample, ending, data) for ending, data in sample.texts.items()}
    if not texts:
        found = ", ".join(f".{ending}" for ending in (*sample.images, *sample.others))
        raise ValueError(f"sample {sample.key} has no text (got {found}). Add a .json or .txt member beside the image.")
    value = _parsed(sample.key, texts["json"]) if "json" in texts else {}
    for ending in ("txt", "caption"):
        if ending in texts and value.get("caption") is None:
            value["caption"] = texts[ending].strip()
    if sample.images:
        _place_images(value, sample)
    return value


def _text(sample: _Sample, ending: str, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        byte = data[error.start]
        message = f"{sample.key}.{ending} holds the byte 0x{byte:02x}, which is not UTF-8. Write it as UTF-8."
        raise ValueError(message) from None


def _parsed(key: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise ValueError(f"{key}.json is broken JSON: {json_reason(error)} at {where}. Write it again.") from None
    except RecursionError:
        raise ValueError(f"{key}.json is nested too deep. A record is an object of plain fields.") from None
    if not isinstance(value, dict):
        raise ValueError(f"{key}.json must hold an object. A record is an object with keys such as conversations.")
    return value


def _place_images(value: dict[str, Any], sample: _Sample) -> None:
    """Put the slots where the record names its images: by name where it lists several, else in order."""
    images = {ending: sample.images[ending] for ending in sorted(sample.images, key=_natural)}
    key = "images" if value.get("images") and not value.get("image") else "image"
    named = value.get(key)
    names = [named] if isinstance(named, str) else named
    if not names or not isinstance(names, list) or len(names) == len(images) == 1:
        slots = list(images.values())
        value[key] = slots if len(slots) > 1 else slots[0]
        return
    value[key] = []
    for name in names:
        ending = next((ending for ending in images if _names(name, sample.key, ending)), None)
        if ending is None:
            has = ", ".join(f".{ending}" for ending in images)
            raise ValueError(
                f"sample {sample.key} has no member for image {name!r:.80} (got {has}). Name the member so."
            )
        value[key].append(images[ending])


def _names(name: Any, key: str, ending: str) -> bool:
    """Whether a record means a member: by the last part of its name, or by its extension."""
    if not isinstance(name, str):
        return False
    base = key.rsplit("/", 1)[-1].lower()
    return name.rsplit("/", 1)[-1].lower() in (f"{base}.{ending}", ending, f".{ending}")


def _natural(ending: str) -> list[tuple[int, str]]:
    """Sort key by which `2.jpg` stands before `10.jpg`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in _DIGITS.split(ending)]
