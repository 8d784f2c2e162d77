"""One source of a dataset: its samples, and the folder that their images are in."""

import os
from dataclasses import dataclass, replace

import numpy as np

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
        slot = self.store.image(image_id)
        try:
            if slot.size is None:
                return self.images.stamp(slot.path)
            status = os.stat(slot.path)  # a shard, or the store's own file
        except (OSError, ValueError):
            return 0, 0
        return status.st_size, status.st_mtime_ns

    def stamps(self, image_ids: np.ndarray) -> np.ndarray:
        """Return the stamps of all images, of others than the given ones zeros: int64[num images, 2]."""
        table = np.zeros((self.store.num_distinct_images, 2), np.int64)
        table[image_ids] = np.array([self.stamp(number) for number in image_ids.tolist()], np.int64).reshape(-1, 2)
        return table
