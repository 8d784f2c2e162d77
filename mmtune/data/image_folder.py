"""Which file the image path of a record means. Nothing is opened, and nothing outside the image folder is given out."""

import os
import stat
from pathlib import Path
from typing import NamedTuple

MEND = "Mend the path, or `image_folder`."


class FoundImage(NamedTuple):
    """A file that a record means.

    Attributes:
        path: absolute, to open it by.
        size_bytes: how long it is.
        mtime_ns: when it was last written, in nanoseconds since 1970.
    """

    path: str
    size_bytes: int
    mtime_ns: int


class ImageFolder:
    """The folder that image paths are relative to, and that they may not leave.

    A path costs one look at its file; where its folder really lies is looked up once. Also for tar files of images.

    Args:
        folder: what paths are relative to.
        follow_links: links may lead out of the folder; `..` and absolute paths still may not.

    Attributes:
        root: its absolute path.
    """

    def __init__(self, folder: Path | str, follow_links: bool = False):
        self.follow_links = follow_links
        self._folder = "" if str(folder) == "." else str(folder)
        self.root = os.path.abspath(folder)
        self._real_root = os.path.realpath(folder)
        self._parents: dict[str, str | None] = {}  # as named -> where its files are opened; None: outside

    def resolve(self, path: str) -> str:
        """Return the absolute path of an image, for opening it.

        Args:
            path: as the record names it; an absolute one has to lie in the folder, too.

        Raises:
            ValueError: no such file, no file at all, or outside the folder; "reason. mend.".
        """
        return self.find(path).path

    def stamp(self, path: str) -> tuple[int, int]:
        """Return the size in bytes and the time of the last change in nanoseconds, which tell whether a file changed.

        Raises:
            ValueError: as `resolve`.
        """
        return self.find(path)[1:]

    def find(self, path: str) -> FoundImage:
        """Return what `resolve` and `stamp` return, for one look at the file.

        Raises:
            ValueError: as `resolve`.
        """
        if "\0" in path:
            raise ValueError(f"image path {path!r:.200} has a NUL character. Mend the path.")
        try:
            parent, name = os.path.split(os.path.join(self.root, path))
            if name in ("", ".", ".."):
                raise ValueError(f"image path '{path:.200}' names no file. {MEND}")
            folder = self._parents[parent] if parent in self._parents else self._folder_of(parent)
            if folder is None:
                raise self._outside(path, os.path.join(os.path.realpath(parent), name))
            found = f"{folder}{name}"
            info = os.lstat(found)
            if stat.S_ISLNK(info.st_mode):
                target = os.path.realpath(found)
                if not self.follow_links:
                    if not _is_in(target, self._real_root):
                        raise self._outside(path, target)
                    found = target
                info = os.stat(target)
        except OSError as error:
            raise _missing(self._named(path), error) from None
        except UnicodeError:  # half a surrogate pair
            raise ValueError(f"image path {path!a:.200} is no valid text. Mend the path.") from None
        if not stat.S_ISREG(info.st_mode):
            what = "a folder" if stat.S_ISDIR(info.st_mode) else "a pipe, a socket or a device"
            raise ValueError(f"image {self._named(path):.200} is {what} and no file. {MEND}")
        return FoundImage(found, info.st_size, info.st_mtime_ns)

    def _folder_of(self, parent: str) -> str | None:
        """Return where the files of a folder are opened, with the separator; None where that is outside."""
        if self.follow_links:
            folder = os.path.normpath(parent)
            is_inside = _is_in(folder, self.root) or _is_in(folder, self._real_root)
        else:
            folder = os.path.realpath(parent)
            is_inside = _is_in(folder, self._real_root)
        self._parents[parent] = os.path.join(folder, "") if is_inside else None
        return self._parents[parent]

    def _named(self, path: str) -> str:
        return os.path.join(self._folder, path)

    def _outside(self, path: str, target: str) -> ValueError:
        lexical = os.path.normpath(os.path.join(self.root, path))
        by_link = _is_in(lexical, self.root) or _is_in(lexical, self._real_root)
        way = f"a link leads to {target:.200}" if by_link else f"it is {target:.200}"
        mend = "Set `follow_links: true` if that is meant, or mend `image_folder`." if by_link else MEND
        return ValueError(f"image {path:.200} lies outside the image folder {self.root} ({way}). {mend}")


def missing_image(path: str) -> str | None:
    """Say that no image file is at a path; None where one is. The file is not opened."""
    if os.path.isfile(path):  # False also for a path too long for the system, such as a data URL
        return None
    return f"image {path:.200} is missing (resolved to {os.path.abspath(path):.200})."


def _missing(named: str, error: OSError) -> ValueError:
    where = f"resolved to {os.path.abspath(named):.200}"
    if isinstance(error, PermissionError):
        return ValueError(
            f"image {named:.200} cannot be looked up ({where}): {error.strerror}. Mend its folder's rights."
        )
    hint = "Write / between folders, not \\. " if "\\" in named and os.sep == "/" else ""
    return ValueError(f"image {named:.200} is missing ({where}). {hint}{MEND}")


def _is_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(os.path.join(folder, ""))
