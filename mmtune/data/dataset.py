"""Prepared samples as datasets: one sample an item, or one pack of samples. Order and batches are made elsewhere."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from mmtune.conversation import Sample
from mmtune.data.collate import IMAGE_VALUES
from mmtune.data.feature_store import PartFeatures
from mmtune.data.images import ImageTransform
from mmtune.data.packing import Packs
from mmtune.data.part import Part
from mmtune.errors import DataError


class SampleDataset(Dataset):
    """The samples of an epoch. Nothing but their numbers is in memory: ids are mapped, images opened when asked for.

    Args:
        parts: the sources.
        order: int64[S] samples, counted through all parts; some may come several times.
        transform: from an image to float32[3, H, W]; None where there are no images.

    Attributes:
        features: of each part's images, once they are cached; items then hold them instead of pixels.
    """

    def __init__(self, parts: Sequence[Part], order: np.ndarray, transform: ImageTransform | None = None):
        self.parts, self.order, self.transform = list(parts), order, transform
        self.features: list[PartFeatures] | None = None
        self.offsets = np.cumsum([0] + [len(part.store) for part in parts])

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """Return a sample: `input_ids` int64[T], `labels` int64[T] and, with images, what stands for them.

        That is `pixel_values` float32[N, 3, H, W], or `image_features` float[N, tokens, D] where they are cached.

        Raises:
            DataError: an image cannot be read.
        """
        number, local = self.locate(index)
        part = self.parts[number]
        ids, labels = (torch.from_numpy(values.astype(np.int64)) for values in part.store.ids_and_labels(local))
        item = {"input_ids": ids, "labels": labels}
        if len(part.store.image_ids(local)):
            if self.features is None:
                item["pixel_values"] = self.pixel_values(index)
            else:
                item["image_features"] = self.image_features(index)
        return item

    def locate(self, index: int) -> tuple[int, int]:
        """Return which part an item is from, and the number of its sample there."""
        number = int(self.order[index])
        part = int(np.searchsorted(self.offsets, number, side="right")) - 1
        return part, number - int(self.offsets[part])

    def part_sizes(self) -> list[int]:
        """Return how many items are from each part."""
        parts = np.searchsorted(self.offsets, self.order, side="right") - 1
        return np.bincount(parts, minlength=len(self.parts)).tolist()

    def sample(self, index: int) -> Sample:
        """Return the sample of an item; its images as the record names them."""
        number, local = self.locate(index)
        return self.parts[number].store.sample(local)

    def place(self, index: int) -> str:
        """Return `file:line` of an item's record."""
        number, local = self.locate(index)
        return self.parts[number].store.place(local)

    def pixel_values(self, index: int) -> torch.Tensor:
        """Return the images of an item as float32[N, 3, H, W]."""
        part, transform, place = self.parts[self.locate(index)[0]], self.transform, self.place(index)
        assert transform is not None, "samples with images need a transform"
        return self._stacked(index, lambda image_id: transform.open(part.locate(image_id), place))

    def image_features(self, index: int) -> torch.Tensor:
        """Return the cached features of the images of an item: float[N, tokens, D]."""
        assert self.features is not None
        return self._stacked(index, self.features[self.locate(index)[0]])

    def _stacked(self, index: int, tensor_of: Callable[[int], torch.Tensor]) -> torch.Tensor:
        number, local = self.locate(index)
        try:
            return torch.stack([tensor_of(image_id) for image_id in self.parts[number].store.image_ids(local).tolist()])
        except ValueError as error:
            raise DataError(self.place(index), str(error)) from None

    def images_of(self, part: int) -> np.ndarray:
        """Return which distinct images of a part the items show: int64[N]."""
        inside = (self.order >= self.offsets[part]) & (self.order < self.offsets[part + 1])
        return self.parts[part].store.images_of(self.order[inside] - self.offsets[part])

    def values(self, name: str) -> np.ndarray:
        """Return a number of each item, such as `lengths` or `num_supervised` (an array of `SampleStore`)."""
        return np.concatenate([part.store.arrays[name] for part in self.parts])[self.order]

    @property
    def lengths(self) -> np.ndarray:
        """The tokens of each item, images included: int[S]."""
        return self.values("lengths")

    @property
    def num_images(self) -> np.ndarray:
        """The images of each item: int[S]."""
        return np.concatenate([part.store.num_images for part in self.parts])[self.order]


class PackedDataset(Dataset):
    """Packs of samples: an item is several samples one after the other, each with positions from 0.

    Args:
        samples: the samples.
        packs: which of them stand together.
    """

    def __init__(self, samples: SampleDataset, packs: Packs):
        self.samples, self.packs = samples, packs
        self.lengths = packs.sums(samples.lengths)
        self.num_images = packs.sums(samples.num_images)

    def __len__(self) -> int:
        return len(self.packs)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """Return a pack: what `SampleDataset` returns, joined, and `position_ids` int64[T], 0 at each sample's start.

        The first label of each sample is ignored, so that nothing is predicted across a border.
        """
        items = [self.samples[number] for number in self.packs[index].tolist()]
        pack = {name: torch.cat([item[name] for item in items]) for name in ("input_ids", "labels")}
        pack["position_ids"] = torch.cat([torch.arange(len(item["input_ids"])) for item in items])
        for name in IMAGE_VALUES:
            images = [item[name] for item in items if name in item]
            if images:
                pack[name] = torch.cat(images)
        return pack

    def place(self, index: int) -> str:
        """Return `file:line` of each record in a pack."""
        return ", ".join(self.samples.place(number) for number in self.packs[index].tolist())
