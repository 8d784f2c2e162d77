"""Files that outlive a crash of the machine: written to the disk before anything says that they are there."""

import errno
import os
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT)


def sync_file(path: Path) -> None:
    """Bring a file's content to the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk; nothing where the system knows no such thing (Windows)."""
    if os.name == "nt":
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
    return any(os.strerror(number) in str(error) for number in FULL)
