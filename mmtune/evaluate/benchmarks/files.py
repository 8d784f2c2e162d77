"""Reads the files that benchmarks are published as; what is wrong with them is said with file and place."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmtune.data.json_records import json_reason, read_json
from mmtune.data.record import Record
from mmtune.errors import DataError

LAYOUTS = "docs/eval.md shows the layout."


def folder_of(data: Path) -> Path:
    """Return the folder of benchmark data, which may be named by one of its files."""
    return data if data.is_dir() else data.parent


def find_file(data: Path, *names: str) -> Path:
    """Return the first of some files that is in a folder.

    Args:
        data: the folder.
        names: relative paths, the published one first.

    Raises:
        DataError: the folder is missing, or none of the files is in it.
    """
    if not data.is_dir():
        raise DataError(data, f"no such folder (resolved to {data.resolve()}). Name the folder with --data.")
    for name in names:
        if (data / name).is_file():
            return data / name
    raise DataError(data, f"holds no {names[0]} (resolved to {data.resolve()}). {LAYOUTS}")


def find_files(data: Path, *endings: str) -> list[Path]:
    """Return a file itself, or the files of a folder with one of some endings, in the order of their names.

    Raises:
        DataError: there is none.
    """
    if data.is_file():
        return [data]
    if not data.is_dir():
        raise DataError(data, f"no such file or folder (resolved to {data.resolve()}). Name it with --data.")
    found = sorted(path for path in data.iterdir() if path.name.endswith(endings) and path.is_file())
    if not found:
        raise DataError(data, f"holds no file that ends with {' or '.join(endings)}. {LAYOUTS}")
    return found


def read_lines(path: Path) -> Iterator[Record]:
    """Yield the objects of JSON lines or of a JSON list.

    Raises:
        DataError: a line is broken or no object, or the file cannot be read.
    """
    try:
        for record in read_json(path):
            yield checked(record)
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror}. Mend its rights.") from None


def checked(record: Record) -> Record:
    """Return a record that holds an object.

    Raises:
        DataError: it could not be read, or holds something else.
    """
    if record.problem:
        raise DataError(record.place, record.problem)
    if not isinstance(record.value, dict):
        raise DataError(record.place, f"an object was expected (got {record.value!r:.60}). Mend the line.")
    return record


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object that a file is.

    Raises:
        DataError: it cannot be read, is broken or is no object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror}. Mend its rights.") from None
    except json.JSONDecodeError as error:
        message = f"broken JSON: {json_reason(error)} at column {error.colno}. Download it again."
        raise DataError(f"{path}:{error.lineno}", message) from None
    except UnicodeDecodeError:
        raise DataError(path, "is not UTF-8. Download it again.") from None
    if not isinstance(value, dict):
        raise DataError(path, f"an object was expected (got {type(value).__name__}). {LAYOUTS}")
    return value


def field(value: Any, key: str, kind: type, place: str) -> Any:
    """Return an entry of an object.

    Args:
        value: the object.
        key: the name of the entry.
        kind: str, int, list or dict.
        place: for the message.

    Raises:
        DataError: there is none, or it is of another kind.
    """
    found = value.get(key) if isinstance(value, dict) else None
    if not isinstance(found, kind) or isinstance(found, bool):
        names = {str: "a text", int: "a whole number", list: "a list", dict: "an object"}
        raise DataError(place, f"'{key}' must be {names[kind]} (got {found!r:.60}). {LAYOUTS}")
    return found


def texts(value: Any, key: str, place: str) -> tuple[str, ...]:
    """Return a list of texts in an object.

    Raises:
        DataError: it is none.
    """
    found = field(value, key, list, place)
    if not all(isinstance(text, str) for text in found):
        raise DataError(place, f"'{key}' must be a list of texts (got {found!r:.60}). {LAYOUTS}")
    return tuple(found)


def one_of(value: str, allowed: tuple[str, ...], key: str, place: str) -> str:
    """Return a text that is one of those allowed.

    Raises:
        DataError: it is not.
    """
    if value not in allowed:
        raise DataError(place, f"'{key}' must be {' or '.join(allowed)} (got {value!r:.60}). {LAYOUTS}")
    return value
