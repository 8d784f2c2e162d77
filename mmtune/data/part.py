"""One source of a dataset: its samples, and the folder that their images are in."""

import os
from dataclasses import dataclass, replace

from mmtune.conversation import ImageSlot
from mmtune.data.image_folder import ImageFolder
from mmtune.data.sample_store import SampleStore


@dataclass(frozen=True)
class Part:
    """One source of a dataset.

    Attributes:
        store: its samples.
        images: the folder that their image paths are relative to.
    """

    store: SampleStore
    images: ImageFolder

    def locate(self, image_id: int) -> ImageSlot:
        """Return where one of the store's distinct images is on disk.

        Raises:
            ValueError: it is missing, or not inside the image folder.
        """
        slot = self.store.image(image_id)
        return slot if slot.size is not None else replace(slot, path=self.images.resolve(slot.path))

    def stamp(self, image_id: int) -> tuple[int, int]:
        """Return size in bytes and time of change in ns of the file that holds an image; zeros where there is none."""
        try:
            status = os.stat(os.path.join(self.images.root, self.store.image(image_id).path))
        except (OSError, ValueError):
            return 0, 0
        return status.st_size, status.st_mtime_ns
