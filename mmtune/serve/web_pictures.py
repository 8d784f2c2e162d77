"""The images of one dialogue: read from uploads under limits, and a small copy of each for the page."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from mmtune.conversation import ImageSlot
from mmtune.data.image_files import open_image
from mmtune.errors import ConfigError
from mmtune.serve.uploads import UploadLimits, checked_upload
from mmtune.serve.web_files import keep_shown, read_upload

MAX_IMAGES = 8
"""With one question. Each takes tokens of the context anyway."""
LARGEST_UPLOADS = 8
"""Images of a dialogue take so many times the largest upload at most: they are kept in memory."""


class Pictures:
    """The images of one dialogue.

    Args:
        files: the folder of uploads.
        limits: of each.
    """

    def __init__(self, files: Path, limits: UploadLimits):
        self.files, self.limits = files, limits
        self._shown: dict[ImageSlot, str] = {}

    def take(self, paths: Sequence[str], *, sees: bool) -> list[ImageSlot]:
        """Return uploads as a `ChatSession` takes them, each decoded once to find out whether it can be.

        Args:
            paths: of uploads.
            sees: whether the model does.

        Raises:
            ConfigError: it does not, or there are too many.
            DataError: a path is no upload, or a file no image within the limits.
        """
        if paths and not sees:
            raise ConfigError("image", "this model was trained on text alone and cannot see. Ask without an image.")
        if len(paths) > MAX_IMAGES:
            raise ConfigError("images", f"at most {MAX_IMAGES} with one question (got {len(paths)}). Ask in turns.")
        slots = [checked_upload(read_upload(path, self.files), Path(path).name, self.limits) for path in paths]
        held = sum(len(slot.data or b"") for slot in {*self._shown, *slots})
        if held > LARGEST_UPLOADS * self.limits.max_bytes:
            raise ConfigError("images", "those of this dialogue take too much memory. Begin a new dialogue.")
        for slot in slots:
            if slot not in self._shown:
                self._shown[slot] = keep_shown(open_image(slot), self.files)
        return slots

    def shown(self, slots: Iterable[ImageSlot]) -> tuple[str, ...]:
        """Return the small copies of images that were taken."""
        return tuple(self._shown[slot] for slot in slots)
