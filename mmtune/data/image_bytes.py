"""The encoded bytes of an image: a file, a part of a file, or what a record holds. Nothing is decoded here."""

import io
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from mmtune.conversation import ImageSlot

MAX_BYTES = 64 * 2**20
"""The largest encoded image. A photograph of 100 million pixels saved at the highest quality has about that."""


@contextmanager
def opened_bytes(slot: ImageSlot) -> Iterator[tuple[BinaryIO, int]]:
    """Give a stream at the first byte of an encoded image, and the number of its bytes. Never waits for a pipe.

    Raises:
        ValueError: "reason. mend."
    """
    if slot.data is not None:
        yield io.BytesIO(slot.data), _checked_size(len(slot.data))
        return
    stream, file_size = _opened_file(slot.path)
    with stream:
        offset, size = (0, file_size) if slot.size is None else (slot.offset, slot.size)
        if offset < 0 or size < 0 or offset + size > file_size:
            end = offset + size
            raise ValueError(f"ends at byte {end:,} of a file of {file_size:,}. Download or copy the file again.")
        _checked_size(size)
        try:
            stream.seek(offset)
            yield stream, size
        except OSError as error:
            raise ValueError(f"cannot be read ({error.strerror}). Copy it again.") from None


def read_bytes(slot: ImageSlot) -> bytes:
    """Return an encoded image.

    Raises:
        ValueError: "reason. mend."
    """
    with opened_bytes(slot) as (stream, size):
        return stream.read(size)


def _opened_file(path: str) -> tuple[BinaryIO, int]:
    try:
        info = os.stat(path)  # before opening: to open a device or a pipe may do something, or wait
        if stat.S_ISREG(info.st_mode):
            return open(path, "rb", opener=_open_without_waiting), info.st_size
    except FileNotFoundError:
        raise ValueError(f"no such image (resolved to {os.path.abspath(path):.200}). Mend the path.") from None
    except OSError as error:
        mend = "Mend its rights." if isinstance(error, PermissionError) else "Mend the path."
        raise ValueError(f"cannot be opened ({error.strerror}). {mend}") from None
    except ValueError:  # a NUL, or half a surrogate pair
        raise ValueError("no such image, its path has a character that no path can have. Mend the path.") from None
    what = "a folder" if stat.S_ISDIR(info.st_mode) else "a pipe, a socket or a device"
    raise ValueError(f"is {what} and no image file. Mend the path.")


def _open_without_waiting(path: str, flags: int) -> int:
    """The file may have become a pipe since it was looked at."""
    return os.open(path, flags if sys.platform == "win32" else flags | os.O_NONBLOCK)


def _checked_size(size: int) -> int:
    if not size:
        raise ValueError("it is empty. Download or copy it again.")
    if size > MAX_BYTES:
        raise ValueError(f"too large ({size:,} bytes; at most {MAX_BYTES:,}). Save it smaller.")
    return size
