"""Encoded samples as a dataset, whose items open their images. Order, batches and packs are made elsewhere."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch.utils.data import Dataset

from mmtune.conversation import Conversation, Sample
from mmtune.data.formats import parse_record
from mmtune.data.images import ImageTransform, missing_image, open_image
from mmtune.data.records import read_records
from mmtune.errors import DataError

Encode = Callable[[Conversation, str], Sample]


@dataclass
class SampleReport:
    """What became of the records: `num_records == num_samples + len(skipped)` always holds.

    Attributes:
        num_records: records read.
        num_samples: samples kept.
        num_cut: kept samples that `max_length` cut.
        skipped: one `{"place", "reason"}` a record left out.
    """

    num_records: int = 0
    num_samples: int = 0
    num_cut: int = 0
    skipped: list[dict[str, str]] = field(default_factory=list)


def read_samples(
    path: Path | str,
    encode: Encode,
    report: SampleReport,
    *,
    format_name: str | None = None,
    image_folder: Path | str | None = None,
    on_bad_record: str = "error",
) -> Iterable[Sample]:
    """Yield the encoded samples of a data file.

    Args:
        path: the data file.
        encode: turns a conversation and its place into a sample.
        report: counts are added to it.
        format_name: a key of `FORMATS`; None detects the format of each record.
        image_folder: what image paths are relative to; None takes the data file's folder.
        on_bad_record: `error` stops at the first bad record; `skip` lists it in the report and goes on.

    Raises:
        DataError: the file cannot be read, or a record is bad and `on_bad_record` is `error`.
    """
    folder = Path(image_folder) if image_folder is not None else Path(path).parent
    for record in read_records(path):
        report.num_records += 1
        try:
            sample = encode(parse_record(record, format_name), record.place)
            sample = _checked(sample, folder)
        except DataError as error:
            if on_bad_record == "error":
                raise
            report.skipped.append({"place": record.place, "reason": error.message})
            continue
        report.num_samples += 1
        report.num_cut += sample.num_cut_tokens > 0
        yield sample


def _checked(sample: Sample, folder: Path) -> Sample:
    if not sample.num_supervised_tokens:
        message = f"no answer is left within max_length ({sample.num_cut_tokens} tokens cut). Raise data.max_length."
        raise DataError(sample.place, message)
    slots = tuple(replace(slot, path=str(folder / slot.path)) for slot in sample.image_slots)
    for slot in slots:
        if missing := missing_image(slot.path):
            raise DataError(sample.place, f"{missing} Mend the path, or `image_folder`.")
    return replace(sample, image_slots=slots)


class SampleDataset(Dataset):
    """Samples whose images are opened when an item is asked for.

    Args:
        samples: encoded, with image paths that can be opened.
        transform: from an image to float32[3, H, W]; None where there are no images.
    """

    def __init__(self, samples: list[Sample], transform: ImageTransform | None = None):
        self.samples = samples
        self.transform = transform

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """Return `input_ids` int64[T], `labels` int64[T] and, with images, `pixel_values` float32[N, 3, H, W]."""
        sample = self.samples[index]
        item = {
            "input_ids": torch.tensor(sample.input_ids, dtype=torch.int64),
            "labels": torch.tensor(sample.labels, dtype=torch.int64),
        }
        if sample.images:
            item["pixel_values"] = self.pixel_values(index)
        return item

    def pixel_values(self, index: int) -> torch.Tensor:
        """Return the images of one sample as float32[N, 3, H, W]."""
        sample = self.samples[index]
        assert self.transform is not None, "samples with images need a transform"
        return torch.stack([self.transform(open_image(path, sample.place)) for path in sample.images])

    @property
    def lengths(self) -> list[int]:
        """The number of tokens of each sample, images included."""
        return [len(sample.input_ids) for sample in self.samples]
