"""Conversations that a program holds, as a dataset: for data that is in no file, and for loops of one's own."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from mmtune.conversation import ImageSlot, Sample
from mmtune.data.image_folder import ImageFolder
from mmtune.data.images import ImageTransform
from mmtune.errors import DataError


class ConversationDataset(Dataset):
    """Encoded samples in memory; images are opened when asked for. Items are those of `SampleDataset`.

    Args:
        samples: from `encode`.
        transform: from an image to float32[3, H, W]; None where there are no images.
        image_folder: what image paths are relative to, and may not leave.

    Attributes:
        lengths: int64[S] tokens of each sample, images included.
        num_images: int64[S] images of each sample.

    Raises:
        DataError: there is no sample, or one without a supervised token.
    """

    def __init__(
        self, samples: Sequence[Sample], transform: ImageTransform | None = None, image_folder: Path | str = "."
    ):
        if not samples:
            raise DataError("samples", "there is none. Give at least one.")
        for number, sample in enumerate(samples):
            if not sample.num_supervised_tokens:
                cut = f" ({sample.num_cut_tokens} tokens cut)" if sample.num_cut_tokens else ""
                message = f"no answer is left to train{cut}. Raise max_length, or leave it out."
                raise DataError(sample.place or f"samples[{number}]", message)
        self.samples, self.transform, self.images = list(samples), transform, ImageFolder(image_folder)
        self.lengths = np.array([len(sample.input_ids) for sample in samples])
        self.num_images = np.array([len(sample.image_slots) for sample in samples])

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """Return `input_ids` int64[T], `labels` int64[T] and, with images, `pixel_values` float32[N, 3, H, W].

        Raises:
            DataError: an image cannot be read.
        """
        sample = self.samples[index]
        item = {"input_ids": torch.tensor(sample.input_ids), "labels": torch.tensor(sample.labels)}
        if sample.image_slots:
            place = self.place(index)
            item["pixel_values"] = torch.stack([self._pixels(slot, place) for slot in sample.image_slots])
        return item

    def place(self, index: int) -> str:
        """Return what a sample is called in messages."""
        return self.samples[index].place or f"samples[{index}]"

    def _pixels(self, slot: ImageSlot, place: str) -> torch.Tensor:
        assert self.transform is not None, "samples with images need a transform"
        try:
            is_file = slot.data is None and slot.size is None
            found = replace(slot, path=self.images.resolve(slot.path)) if is_file else slot
        except ValueError as error:
            raise DataError(place, str(error)) from None
        return self.transform.open(found, place)
