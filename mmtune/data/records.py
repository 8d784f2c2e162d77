"""Read the records of a data file one by one, each with its place. Knows no format of conversation."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from mmtune.errors import DataError

CHUNK_CHARS = 1 << 20
MAX_RECORD_CHARS = 64 << 20
LONGEST_LITERAL_CHARS = 16
_SPACE = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True)
class Record:
    """One record of a data file.

    Attributes:
        value: the parsed JSON value.
        path: the file it came from.
        line: the line on which it starts, counted from 1.
    """

    value: Any
    path: Path
    line: int

    @property
    def place(self) -> str:
        """`file:line`, the place that error messages name."""
        return f"{self.path}:{self.line}"


def read_records(path: Path | str) -> Iterator[Record]:
    """Yield the records of a JSON array (`.json`) or of JSON lines (`.jsonl`), streamed.

    The content decides, not the name: a file that opens with `[` is an array. JSON lines may hold blank lines.

    Args:
        path: the file.

    Yields:
        The records in file order.

    Raises:
        DataError: the file is missing, unreadable, empty, not UTF-8 or not JSON; the message holds the line.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield from _records_of(file, path)
    except FileNotFoundError:
        raise DataError(path, f"no such file (looked in {path.resolve().parent}). Mend the path.") from None
    except IsADirectoryError:
        raise DataError(path, "this is a folder. Name a .json or .jsonl file.") from None
    except PermissionError:
        raise DataError(path, "no permission to read it. Mend its mode, or name another file.") from None
    except OSError as error:
        raise DataError(f"{path!s:.200}", f"cannot be opened: {error.strerror}. Mend the path.") from None
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise DataError(path, f"holds the byte 0x{byte:02x}, which is not UTF-8. Save the file as UTF-8.") from None


def _records_of(file: IO[str], path: Path) -> Iterator[Record]:
    line, first = 1, ""
    for first in iter(lambda: file.readline(CHUNK_CHARS), ""):  # a whole array may stand on one line
        if first.strip():
            break
        line += first.endswith("\n")
    if not first.strip():
        raise DataError(path, "the file is empty. It needs at least one record.")
    if first.lstrip().startswith("["):
        yield from _array_records(_Buffer(file, first.lstrip()[1:], line), path)
    else:
        rest = "" if first.endswith("\n") else file.readline()
        yield from _line_records(first + rest, file, path, line)


def _line_records(first: str, file: IO[str], path: Path, line: int) -> Iterator[Record]:
    text = first
    while text:
        if text.strip():
            yield Record(_parse_line(text, path, line), path, line)
        line += 1
        text = file.readline()


def _parse_line(text: str, path: Path, line: int) -> Any:
    try:
        return json.loads(text.rstrip())
    except json.JSONDecodeError as error:
        hint = "A JSON lines file holds one whole record a line." if text.strip() == "{" else "Mend the line."
        raise DataError(f"{path}:{line}", f"broken JSON: {error.msg} at column {error.colno}. {hint}") from None
    except RecursionError:
        raise DataError(f"{path}:{line}", "JSON nested too deep. A record is an object of plain fields.") from None


class _Buffer:
    """Text of a file read in chunks, a position in it and the line number there."""

    def __init__(self, file: IO[str], text: str, line: int):
        self.file, self.text, self.line = file, text, line
        self.position = 0
        self.decoder = json.JSONDecoder()

    def more(self) -> bool:
        """Drop what is behind the position and read one chunk; False at the end of the file."""
        chunk = self.file.read(CHUNK_CHARS)
        self.text = self.text[self.position :] + chunk
        self.position = 0
        return bool(chunk)

    def move_to(self, end: int) -> None:
        self.line += self.text.count("\n", self.position, end)
        self.position = end

    def skip_space(self) -> str:
        """Move past white space and return the next character, or an empty string at the end of the file."""
        while True:
            match = _SPACE.match(self.text, self.position)
            assert match is not None
            self.move_to(match.end())
            if self.position < len(self.text) or not self.more():
                return self.text[self.position : self.position + 1]

    def is_cut(self, error: json.JSONDecodeError) -> bool:
        """Whether the text may be broken only because the chunk ends here."""
        return error.msg.startswith("Unterminated string") or error.pos >= len(self.text) - LONGEST_LITERAL_CHARS


def _array_records(buffer: _Buffer, path: Path) -> Iterator[Record]:
    count = 0
    while (char := buffer.skip_space()) != "]":
        if not char:
            place = f"{path}:{buffer.line}"
            raise DataError(place, "the JSON array has no closing ']'. The file is cut off: copy it again.")
        if count:
            if char != ",":
                place = f"{path}:{buffer.line}"
                raise DataError(place, f"broken JSON: expected ',' or ']', got '{char}'. Mend the line.")
            buffer.move_to(buffer.position + 1)
            buffer.skip_space()
        line = buffer.line
        count += 1
        yield Record(_parse_element(buffer, path, count), path, line)
    if not count:
        raise DataError(path, "the array is empty. It needs at least one record.")
    buffer.move_to(buffer.position + 1)
    if char := buffer.skip_space():
        place = f"{path}:{buffer.line}"
        raise DataError(place, f"'{char}' after the closing ']'. A file is one array, or one record a line.")


def _parse_element(buffer: _Buffer, path: Path, number: int) -> Any:
    while True:
        try:
            value, end = buffer.decoder.raw_decode(buffer.text, buffer.position)
            if end < len(buffer.text) or not buffer.more():
                buffer.move_to(end)
                return value
        except json.JSONDecodeError as error:
            too_long = len(buffer.text) - buffer.position > MAX_RECORD_CHARS
            line = buffer.line + buffer.text.count("\n", buffer.position, error.pos)
            if too_long or not buffer.is_cut(error) or not buffer.more():
                message = f"broken JSON in record {number}: {error.msg}. Mend the line."
                raise DataError(f"{path}:{line}", message) from None
        except RecursionError:
            message = "JSON nested too deep. A record is an object of plain fields."
            raise DataError(f"{path}:{buffer.line}", message) from None
