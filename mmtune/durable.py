"""Files that outlive a crash of the machine: written to the disk before anything says that they are there."""

import errno
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from mmtune.errors import ConfigError

IS_WINDOWS = os.name == "nt"
FULL = (errno.ENOSPC, errno.EDQUOT)
FULL_TEXTS = (
    os.strerror(errno.ENOSPC),
    "Disk quota exceeded",  # EDQUOT; Windows has no text for its number
    "There is not enough space on the disk",  # what Windows says to libraries that ask it directly
)
NUM_THREADS = 8
"""File systems bring files to the disk together that are asked for at once: 2,000 small ones in 0.3 s, not in 4."""


def sync_file(path: Path) -> None:
    """Bring a file's content to the disk. Windows does so for files alone that are open for writing."""
    with path.open("r+b" if IS_WINDOWS else "rb") as file:
        os.fsync(file.fileno())


def sync_files(paths: Iterable[Path]) -> None:
    """Bring the content of many files to the disk."""
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        list(pool.map(sync_file, paths))


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """Give the path to write a file to; it is renamed to its own, so that there is a whole one at any moment."""
    beside = path.with_name(f".{path.name}.part")
    yield beside
    beside.replace(path)


@contextmanager
def write_errors_named(folder: Path, place: str = "--output", mend: str = "Name another --output.") -> Iterator[None]:
    """Say what keeps a folder from being made or written to.

    Args:
        folder: that is written to inside.
        place: the option or the key that named it.
        mend: what to do.

    Raises:
        ConfigError: the system refused.
    """
    try:
        yield
    except OSError as error:
        raise ConfigError(place, f"cannot write to {folder.resolve()}: {error.strerror}. {mend}") from None


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk; nothing where the system knows no such thing (Windows)."""
    if IS_WINDOWS:
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_disk_full(error: BaseException) -> bool:
    """Whether an error of any library means that there is no space left.

    safetensors and tokenizers keep nothing but the text of the system's message.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in FULL
    return any(text in str(error) for text in FULL_TEXTS)
