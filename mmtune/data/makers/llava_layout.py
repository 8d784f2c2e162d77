"""Look which images of a LLaVA data file are there: by group, without opening them, in one pass over the records.

Also here: links for folders that lie elsewhere, and a copy of the data file whose names have the suffixes that the
files have. What the groups are and where to get them: `llava_sets`. How it is printed: `llava_report`.
"""

import os
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from mmtune.data.makers.llava_sets import group_of
from mmtune.data.makers.record_files import RecordWriter, image_paths
from mmtune.data.records import read_records
from mmtune.errors import DataError

SUFFIXES = (".jpg", ".png", ".gif", ".jpeg", ".webp", ".bmp", ".JPG", ".PNG", ".GIF", ".JPEG")
MAX_EXAMPLES = 20
MAX_GROUPS = 100
OTHER_GROUPS = "other folders"


@dataclass
class Group:
    """The images of one set. `num_images` = there + with another suffix + empty + missing.

    Attributes:
        num_mentions: how often records name its images.
        num_images: different images.
        num_there: files with some content.
        num_other_suffix: there, but with another suffix than the record says.
        num_empty: files of 0 bytes.
        num_missing: no file.
        examples: the first lacking images, each with the place of its record and what lacks.
        found_at: where the first missing image lies instead, if it was found one folder off.
        is_linked: whether an image that is there lies outside the image folder, by a link.
    """

    num_mentions: int = 0
    num_images: int = 0
    num_there: int = 0
    num_other_suffix: int = 0
    num_empty: int = 0
    num_missing: int = 0
    examples: list[dict[str, str]] = field(default_factory=list)
    found_at: str = ""
    is_linked: bool = False

    @property
    def num_lacking(self) -> int:
        """Images that cannot be trained on."""
        return self.num_empty + self.num_missing


@dataclass
class Survey:
    """What a data file needs and what is there.

    Attributes:
        num_records: all records; each has images or is text alone.
        num_text_only: records without an image.
        groups: the images by group.
        renames: path in the records -> path with the suffix that its file has.
    """

    num_records: int = 0
    num_text_only: int = 0
    groups: dict[str, Group] = field(default_factory=dict)
    renames: dict[str, str] = field(default_factory=dict)

    @property
    def total(self) -> Group:
        """The counts of all groups."""
        total = Group()
        for group in self.groups.values():
            for name in ("mentions", "images", "there", "other_suffix", "empty", "missing"):
                key = f"num_{name}"
                vars(total)[key] += vars(group)[key]
        return total


@lru_cache(maxsize=4096)
def _is_folder(path: str) -> bool:
    return os.path.isdir(path)


def survey_images(data_path: Path | str, image_folder: Path | str) -> Survey:
    """Count by group which images a data file needs and which are there. Memory: about 200 bytes for each image name.

    Raises:
        DataError: the data file or a record cannot be read, or the image folder is missing.
    """
    folder = Path(image_folder)
    if not folder.is_dir():
        raise DataError(folder, f"no such folder (resolved to {folder.resolve()}). Mend --image-folder, or make it.")
    _is_folder.cache_clear()
    survey, seen = Survey(), set()
    for record in read_records(data_path):
        paths = image_paths(record)
        survey.num_records += 1
        survey.num_text_only += not paths
        for path in paths:
            group = _group(survey, path)
            group.num_mentions += 1
            if path not in seen:
                seen.add(path)
                _look(survey, group, path, str(folder), record.place)
    return survey


def _group(survey: Survey, path: str) -> Group:
    name = group_of(path)
    if name not in survey.groups and len(survey.groups) >= MAX_GROUPS:
        name = OTHER_GROUPS
    return survey.groups.setdefault(name, Group())


def _look(survey: Survey, group: Group, path: str, folder: str, place: str) -> None:
    """Find the state of one image."""
    group.num_images += 1
    file = os.path.join(folder, path)
    size = _file_size(file)
    if size:
        group.num_there += 1
        if group.num_there == 1:
            group.is_linked = not os.path.realpath(file).startswith(os.path.join(os.path.realpath(folder), ""))
        return
    problem = "empty"
    if size == 0:
        group.num_empty += 1
    elif suffix := _other_suffix(file):
        problem = f"has the suffix {suffix}"
        group.num_other_suffix += 1
        survey.renames[path] = str(PurePosixPath(path).with_suffix(suffix))
    else:
        problem = "missing"
        group.num_missing += 1
        if group.num_missing == 1:
            group.found_at = _one_folder_off(path, folder)
    if len(group.examples) < MAX_EXAMPLES:
        group.examples.append({"image": path, "place": place, "problem": problem})


def _file_size(file: str) -> int | None:
    """Return the size in bytes, or None where no file is."""
    return os.stat(file).st_size if os.path.isfile(file) else None


def _other_suffix(file: str) -> str:
    if not _is_folder(os.path.dirname(file)):
        return ""
    stem = os.path.splitext(file)[0]
    return next((suffix for suffix in SUFFIXES if _file_size(stem + suffix)), "")


def _one_folder_off(path: str, folder: str) -> str:
    """Return where an image lies that was unpacked one folder too deep, or too high; empty where it is nowhere near."""
    parent, name = os.path.split(path)
    candidates = [
        os.path.join(folder, parent, os.path.basename(parent), name),
        os.path.join(folder, "images", path),
        os.path.join(folder, *path.split("/")[1:]),
        os.path.join(folder, os.path.dirname(parent), name),
        os.path.join(folder, "..", path),
    ]
    return next((file for file in candidates if _file_size(file)), "")


def make_link(image_folder: Path, name: str, target: Path) -> str:
    """Make `image_folder/name` a link to a folder that lies elsewhere; returns what was done.

    Raises:
        DataError: the target is no folder, or something else has the name already.
    """
    if not target.is_dir():
        raise DataError(target, f"no such folder (resolved to {target.resolve()}). Mend --link {name}=PATH.")
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts or not parts.parts:
        raise DataError("--link", f"'{name}' is no folder inside {image_folder}. Name one such as coco or vg/VG_100K.")
    link = image_folder / name
    if link.is_symlink() and link.resolve() == target.resolve():
        return f"{link} -> {target.resolve()} (was there)"
    if link.is_symlink() or link.exists():
        raise DataError(link, "exists already and is not that link. Remove it, or leave out --link.")
    try:
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target.resolve(), target_is_directory=True)
    except OSError as error:
        raise DataError(link, f"cannot be made: {error.strerror}. Make the link by hand.") from None
    return f"{link} -> {target.resolve()}"


def write_fixed(data_path: Path, output: Path, renames: dict[str, str], *, overwrite: bool) -> tuple[int, int]:
    """Copy a data file, giving each image name the suffix that its file has.

    Returns:
        How many records were written, and how many of them changed.

    Raises:
        DataError: the output exists or cannot be written.
    """
    num_changed = 0
    with RecordWriter(output, source=data_path, overwrite=overwrite) as writer:
        for record in read_records(data_path):
            changed = _renamed(record.value, renames)
            num_changed += changed != record.value
            writer.write(changed)
    return writer.num_records, num_changed


def _renamed(value: dict[str, Any], renames: dict[str, str]) -> dict[str, Any]:
    changed: dict[str, Any] = {}
    for key in ("image", "images"):
        names = value.get(key)
        if isinstance(names, str) and names in renames:
            changed[key] = renames[names]
        elif isinstance(names, list):
            changed[key] = [renames.get(name, name) for name in names]
    return value | changed
