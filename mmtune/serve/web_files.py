"""The one folder whose files the page serves: uploads, and small copies of images. It is gone when the server ends."""

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from mmtune.errors import DataError

GRADIO_FOLDER = "GRADIO_TEMP_DIR"
"""What Gradio reads for the folder of uploads; it has no argument for it."""
FILE_ROUTE = "/gradio_api/file="
SHOWN_SIDE = 768
"""Pixels of the longest side of an image in the dialogue."""
SHOWN_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")


@contextmanager
def private_folder() -> Iterator[Path]:
    """Give a folder that this user alone can read, let Gradio put uploads there, and delete it at the end."""
    folder = Path(tempfile.mkdtemp(prefix="mmtune-web-")).resolve()
    before = os.environ.get(GRADIO_FOLDER)
    os.environ[GRADIO_FOLDER] = str(folder)
    try:
        yield folder
    finally:
        if before is None:
            os.environ.pop(GRADIO_FOLDER, None)
        else:
            os.environ[GRADIO_FOLDER] = before
        shutil.rmtree(folder, ignore_errors=True)


def is_within(path: str, folder: Path) -> bool:
    """Whether a path names a file that lies in a folder, links followed; no file of another kind counts.

    Args:
        path: as somebody wrote it.
        folder: resolved.
    """
    try:
        resolved = Path(path).resolve()
        return resolved.is_relative_to(folder) and resolved.is_file()
    except (OSError, ValueError, RuntimeError):
        return False


def file_address(path: str) -> str:
    """Return where a browser gets a file of the folder."""
    return f"{FILE_ROUTE}{quote(path)}"


def bytes_in(folder: Path) -> int:
    """Return how much the files of a folder take."""
    sizes = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # gone since
                sizes += (Path(place) / name).stat().st_size
    return sizes


def read_upload(path: str, folder: Path) -> bytes:
    """Return an uploaded file.

    Raises:
        DataError: the path names no file of the folder of uploads.
    """
    if not is_within(path, folder):
        raise DataError("image", "it is no upload. Add the image again.")
    return Path(path).read_bytes()


def keep_shown(image: Image.Image, folder: Path) -> str:
    """Write a small copy of an image into the folder of uploads, named by chance, and return its path."""
    shown = image.copy()
    shown.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
    path = folder / f"{secrets.token_urlsafe(16)}.png"
    shown.save(path)
    return str(path)
