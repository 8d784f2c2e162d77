"""Records of JSON lines and JSON arrays, also gzipped, streamed as bytes. Knows no format of conversation."""

import codecs
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmtune.data.record import MAX_RECORD_BYTES, Record
from mmtune.errors import DataError

CHUNK_BYTES = 1 << 20
LONGEST_LITERAL_CHARS = 16
_SPACE = re.compile(r"[ \t\r\n]*")
_WIDE_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_TOO_LONG = f"longer than {MAX_RECORD_BYTES >> 20} MiB. Store images as files, or mend a quote that never closes."
_TOO_DEEP = "JSON nested too deep. A record is an object of plain fields."


def read_json(path: Path) -> Iterator[Record]:
    """Yield the records of a JSON array or of JSON lines; the content decides, not the name.

    A file that opens with `[` is an array. JSON lines may hold blank lines; a line that cannot be read becomes a
    record with a problem. An array ends at its first error, since nothing tells where its next record begins.

    Args:
        path: the file, plain or gzipped.

    Raises:
        DataError: the file is empty or cut off, or a record of an array is broken; the message holds the line.
        OSError: the file cannot be opened.
    """
    line = 1
    try:
        with _opened(path) as file:
            for record in _records(file, path):
                line = record.line
                yield record
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise DataError(f"{path}:{line}", "the gzipped file is broken or cut off after this. Copy it again.") from None


@contextmanager
def _opened(path: Path) -> Iterator[io.BufferedReader]:
    """Open a file once, plain or gzipped: a pipe cannot be opened again."""
    with path.open("rb") as file:
        if not file.peek(2).startswith(b"\x1f\x8b"):
            yield file
            return
        with gzip.GzipFile(fileobj=file) as unpacked:
            buffered: io.BufferedReader = io.BufferedReader(unpacked, CHUNK_BYTES)
            yield buffered


def _records(file: io.BufferedReader, path: Path) -> Iterator[Record]:
    start = file.peek(4)
    if start.startswith(_WIDE_MARKS):
        raise DataError(path, "is UTF-16. Save the file as UTF-8.")
    if start.startswith(codecs.BOM_UTF8):
        file.read(len(codecs.BOM_UTF8))
    line, first = _skip_space(file)
    if not first:
        raise DataError(path, "the file is empty. It needs at least one record.")
    if first == b"[":
        yield from _array_records(_Text(file, path, line), path)
    else:
        yield from _line_records(file, path, line)


def _skip_space(file: io.BufferedReader) -> tuple[int, bytes]:
    """Move to the first byte that is no white space; return its line and it, or an empty one at the end."""
    line = 1
    while start := file.peek(1):
        rest = start.lstrip()
        space = file.read(len(start) - len(rest))
        line += space.count(b"\n")
        if rest:
            return line, rest[:1]
    return line, b""


# ---------------------------------------------------------------- lines


def _line_records(file: io.BufferedReader, path: Path, line: int) -> Iterator[Record]:
    while raw := file.readline(MAX_RECORD_BYTES + 1):
        if len(raw) > MAX_RECORD_BYTES and not raw.endswith(b"\n"):
            while raw and not raw.endswith(b"\n"):
                raw = file.readline(CHUNK_BYTES)
            yield Record(None, path, line, f"the line is {_TOO_LONG}")
        elif not raw.isspace():
            try:
                yield Record(_decoded(raw.rstrip().decode("utf-8")), path, line)
            except UnicodeDecodeError as error:
                yield Record(None, path, line, _not_utf8(error))
            except json.JSONDecodeError as error:
                hint = "A JSON lines file holds one whole record a line." if raw.strip() == b"{" else "Mend the line."
                yield Record(None, path, line, f"broken JSON: {json_reason(error)} at column {error.colno}. {hint}")
            except RecursionError:
                yield Record(None, path, line, _TOO_DEEP)
        line += 1


def _decoded(text: str) -> Any:
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError:
        raise
    except ValueError:
        return _LENIENT_DECODER.decode(text)


def json_reason(error: json.JSONDecodeError) -> str:
    """Return what is wrong, without the words before a place that some of Python's reasons end with."""
    return error.msg.removesuffix(" at").removesuffix(" starting")


def _not_utf8(error: UnicodeDecodeError) -> str:
    byte = error.object[error.start]
    return f"holds the byte 0x{byte:02x}, which is not UTF-8. Save the file as UTF-8."


def _any_int(digits: str) -> int | float:
    """A whole number of any length: Python refuses to read more than 4300 digits."""
    return int(digits) if len(digits) < 4300 else float(digits)


_DECODER = json.JSONDecoder()
_LENIENT_DECODER = json.JSONDecoder(parse_int=_any_int)


# ---------------------------------------------------------------- arrays


class _Text:
    """Text of a file decoded in chunks, a position in it and the line number there."""

    def __init__(self, file: io.BufferedReader, path: Path, line: int):
        self.file, self.path, self.line = file, path, line
        self.text, self.position = "", 0
        self.utf8 = codecs.getincrementaldecoder("utf-8")()
        self.problem = ""

    def more(self) -> bool:
        """Drop what is behind the position and read on, twice as far each time; False at the end of the file.

        Raises:
            DataError: a byte is not UTF-8, and all text before it was asked for already.
        """
        rest = self.text[self.position :]
        if self.problem:
            raise DataError(f"{self.path}:{self.line + rest.count(chr(10))}", self.problem)
        chunk = self.file.read(max(CHUNK_BYTES, len(rest)))
        try:
            text = self.utf8.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            text = error.object[: error.start].decode()
            self.problem = _not_utf8(error)
        self.text, self.position = rest + text, 0
        return bool(chunk) or bool(self.problem)

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


def _array_records(text: _Text, path: Path) -> Iterator[Record]:
    text.skip_space()
    text.move_to(text.position + 1)
    count = 0
    while (char := text.skip_space()) != "]":
        if not char:
            place = f"{path}:{text.line}"
            raise DataError(place, "the JSON array has no closing ']'. The file is cut off: copy it again.")
        if count:
            if char != ",":
                place = f"{path}:{text.line}"
                raise DataError(place, f"broken JSON: expected ',' or ']', got '{char}'. Mend the line.")
            text.move_to(text.position + 1)
            text.skip_space()
        line = text.line
        count += 1
        yield Record(_element(text, path, count), path, line)
    if not count:
        raise DataError(path, "the array is empty. It needs at least one record.")
    text.move_to(text.position + 1)
    if char := text.skip_space():
        place = f"{path}:{text.line}"
        raise DataError(place, f"'{char}' after the closing ']'. A file is one array, or one record a line.")


def _element(text: _Text, path: Path, number: int) -> Any:
    decoder = _DECODER
    while True:
        try:
            value, end = decoder.raw_decode(text.text, text.position)
            if _is_too_long(text.text, text.position, end):
                raise DataError(f"{path}:{text.line}", f"record {number} is {_TOO_LONG}")
            if end < len(text.text) or not text.more():
                text.move_to(end)
                return value
        except json.JSONDecodeError as error:
            line = text.line + text.text.count("\n", text.position, error.pos)
            if len(text.text) - text.position > MAX_RECORD_BYTES or not text.is_cut(error) or not text.more():
                message = f"broken JSON in record {number}: {json_reason(error)}. Mend the line."
                raise DataError(f"{path}:{line}", message) from None
        except RecursionError:
            raise DataError(f"{path}:{text.line}", _TOO_DEEP) from None
        except ValueError:
            if decoder is _LENIENT_DECODER:
                raise
            decoder = _LENIENT_DECODER


def _is_too_long(text: str, start: int, end: int) -> bool:
    """Whether a record has more bytes than are read; a character has at most four."""
    return (end - start) * 4 > MAX_RECORD_BYTES and len(text[start:end].encode()) > MAX_RECORD_BYTES
