r"""Image files in a line that was typed, pasted or made by dragging files into a terminal. Opens none of them.

Terminals write a dragged file as `'/home/me/a cat.png'`, `/home/me/a\ cat.png` or `file:///home/me/a%20cat.png`.
"""

import os
import re
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from mmtune.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".avif", ".heic")
_ESCAPED = r"" if os.name == "nt" else r"\\.|"
_WORD = re.compile(rf"""'(?P<single>[^']+)'(?!\S)|"(?P<double>[^"]+)"(?!\S)|(?P<bare>(?:{_ESCAPED}\S)+)""")


def split_images(line: str) -> tuple[str, tuple[str, ...]]:
    """Return what a line asks, and the images that it names, in their order.

    A word is an image where it is a whole path (`/...`, `~/...`, `./...`, `file://...`) with the ending of an image, or
    quoted or with escaped spaces and there. A bare name such as `cat.png` is an image only where the line has nothing
    else but images: in a question it may be what the question is about.

    Args:
        line: as it was typed.

    Raises:
        DataError: a whole path names no file.
    """
    words = [(match.span(), *_read(match)) for match in _WORD.finditer(line)]
    is_alone = all(is_image or (Path(path).is_file() and _has_ending(path)) for _, path, is_image in words)
    images, rest, end = [], "", 0
    for (start, stop), path, is_image in words:
        if is_image or is_alone:
            images.append(_found(path))
            rest, end = rest + line[end:start], stop
    if not images:
        return line, ()
    return re.sub(r"[ \t]+", " ", rest + line[end:]).strip(), tuple(images)


def image_paths(argument: str) -> tuple[str, ...]:
    """Return the images that the argument of a command names: one path as it is, with spaces too, or several words.

    Raises:
        DataError: a file is not there.
    """
    whole = Path(argument).expanduser()
    if whole.is_file():
        return (str(whole),)
    return tuple(_found(_read(match)[0]) for match in _WORD.finditer(argument))


def _read(match: re.Match[str]) -> tuple[str, bool]:
    """The path that a word would be, and whether it is an image beyond doubt."""
    quoted = match["single"] or match["double"]
    text = quoted or match["bare"]
    path = text if quoted or os.name == "nt" else re.sub(r"\\(.)", r"\1", text)
    is_url = path.lower().startswith("file://")
    if is_url:
        path = url2pathname(urlsplit(path).path)
    is_whole = is_url or path.startswith(("/", "~/", "./", "../")) or re.match(r"[A-Za-z]:[\\/]", path) is not None
    path = str(Path(path).expanduser()) if is_whole else path
    is_marked = quoted is not None or path != text
    return path, _has_ending(path) and (is_whole or (is_marked and Path(path).is_file()))


def _has_ending(path: str) -> bool:
    return path.lower().endswith(SUFFIXES)


def _found(path: str) -> str:
    if not Path(path).is_file():
        raise DataError(path, f"no such image (resolved to {Path(path).resolve()}). Mend the path.")
    return path
