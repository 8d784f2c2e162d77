"""Write record files whole or not at all, and say which images a record names. Knows no format of conversation."""

from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from mmtune.data.record import Record, to_line
from mmtune.errors import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff")
"""How image files are called that WebDataset readers and Pillow both know."""


class RecordWriter:
    """Writes records as a JSON array (`.json`) or as JSON lines (`.jsonl`), streamed.

    A context manager. The file appears at the end; where the block raises, nothing is left.

    Attributes:
        path: the file to write.
        num_records: how many are written so far.

    Raises:
        DataError: the file exists already, is the input, has another suffix or cannot be written.
    """

    def __init__(self, path: Path | str, *, source: Path | str | None = None, overwrite: bool = False):
        self.path = Path(path)
        self.num_records = 0
        self._is_array = self.path.suffix == ".json"
        self._partial = self.path.with_name(self.path.name + ".partial")
        self._file: IO[str] | None = None
        if self.path.suffix not in (".json", ".jsonl"):
            raise DataError(self.path, "a record file ends in .json or .jsonl. Rename the output.")
        if source is not None and self.path.resolve() == Path(source).resolve():
            raise DataError(self.path, "is the input itself. Name another output.")
        refuse_existing(self.path, overwrite)

    def __enter__(self) -> "RecordWriter":
        try:
            self._file = self._partial.open("w", encoding="utf-8", newline="\n")
        except OSError as error:
            raise cannot_be_written(self.path, error) from None
        return self

    def write(self, value: Any) -> None:
        """Append one record."""
        assert self._file is not None
        opening = ("[\n" if self.num_records == 0 else ",\n") if self._is_array else ""
        try:
            self._file.write(opening + to_line(value) + ("" if self._is_array else "\n"))
        except OSError as error:
            raise cannot_be_written(self.path, error) from None
        self.num_records += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._file is not None
        try:
            if error is None and self._is_array:
                self._file.write("\n]\n" if self.num_records else "[]\n")
            self._file.close()
            if error is None:
                self._partial.replace(self.path)
        except OSError as problem:
            raise cannot_be_written(self.path, problem) from None
        finally:
            with suppress(OSError):
                self._partial.unlink(missing_ok=True)


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Raise where output would replace something unasked.

    Raises:
        DataError: the path exists, and `overwrite` is False.
    """
    if path.is_dir():
        raise DataError(path, "is a folder. Name a file.")
    if path.exists() and not overwrite:
        raise DataError(path, "exists already. Name a new file, or give --overwrite.")


def cannot_be_written(path: Path, error: OSError) -> DataError:
    """Return the one-line error for a failed write."""
    return DataError(path, f"cannot be written: {error.strerror}. Name a file in a folder that exists and has room.")


def object_of(record: Record) -> dict[str, Any]:
    """Return a record's keys and values.

    Raises:
        DataError: the record could not be read, or is no object.
    """
    if record.problem:
        raise DataError(record.place, record.problem)
    if not isinstance(record.value, dict):
        raise DataError(record.place, f"a record is a JSON object (got {to_line(record.value):.60}).")
    return record.value


def image_paths(record: Record) -> list[str]:
    """Return the paths that `image` or `images` names, in order; an empty list for a record of text alone.

    Raises:
        DataError: the record is no object, or its images are no paths.
    """
    record_object = object_of(record)
    value = record_object.get("image") or record_object.get("images") or []
    paths = [value] if isinstance(value, str) else value
    if not isinstance(paths, list) or not all(isinstance(path, str) and path for path in paths):
        raise DataError(record.place, f"'image' must be a path or a list of paths (got {to_line(value):.60}).")
    return paths


def image_folder_note(source: Path, output: Path) -> str:
    """Say where images are looked for when a record file moves to another folder; empty where it stays."""
    if source.resolve().parent == output.resolve().parent:
        return ""
    return f"Image paths are unchanged, relative to {source.parent}: name image_folder: {source.parent} in the config."
