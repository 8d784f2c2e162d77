"""Samples of sources that are read while training, never as a whole: too large to be prepared, or readable only once.

Each record is parsed, encoded and checked when it is met. Nothing is known of what is still to come: no lengths, no
number of samples. Batches are made by the loader; which sources are streamed is for the config.
"""

import json
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import IterableDataset

from mmtune.conversation import ImageSlot, Sample
from mmtune.data.finding import Finding
from mmtune.data.image_folder import ImageFolder
from mmtune.data.images import ImageTransform
from mmtune.data.prepare import RecordEncoder, Source, record_samples
from mmtune.data.record import Record, to_line
from mmtune.data.records import read_once, stream_records
from mmtune.errors import DataError


@dataclass(frozen=True)
class StreamSource:
    """One source of a stream.

    Attributes:
        source: what is read, and how.
        images: the folder that its image paths are relative to.
    """

    source: Source
    images: ImageFolder


@dataclass
class StreamCounts:
    """What became of the records of all passes: at every sample that is given,
    `num_records == num_trained_records + num_buffered_records + num_bad_records`.

    Attributes:
        num_passes: begun.
        num_records: read.
        num_trained_records: given to training; one that became several samples counts with its first.
        num_buffered_records: read, and still in the shuffle buffer.
        num_bad_records: left out; each pass counts them anew.
        num_samples: given to training.
        num_cut_samples: of these, cut by `max_length`.
        num_tokens: of these samples, images included.
        num_supervised_tokens: of these samples.
    """

    num_passes: int = 0
    num_records: int = 0
    num_trained_records: int = 0
    num_buffered_records: int = 0
    num_bad_records: int = 0
    num_samples: int = 0
    num_cut_samples: int = 0
    num_tokens: int = 0
    num_supervised_tokens: int = 0

    def give(self, sample: Sample, is_first: bool) -> None:
        """Count a sample that training gets; `is_first` of its record."""
        self.num_trained_records += is_first
        self.num_samples += 1
        self.num_cut_samples += sample.num_cut_tokens > 0
        self.num_tokens += len(sample.input_ids)
        self.num_supervised_tokens += sample.num_supervised_tokens


@dataclass(frozen=True)
class _Waiting:
    """A sample in the shuffle buffer, and the place of its record.

    Its images are opened when it leaves, or they would fill the memory.
    """

    sample: Sample
    images: ImageFolder
    record: Record
    is_first: bool


class StreamDataset(IterableDataset):
    """Sources are read in turn, a record each; when all have ended, the next pass begins.

    A pass gives each sample once. Its order is a function of the records, the buffer size, the seed and the number of
    the pass.

    Args:
        sources: what is read.
        encoder: turns records into samples.
        transform: from an image to float32[3, H, W]; None where there are no images.
        buffer_size: samples that are shuffled together; 1 keeps the order of the records.
        seed: of the order.
        num_samples: how many are wanted in all; None: there is no end.
        problems_path: JSON lines to which bad records are added, each once; None: a bad record is an error.

    Attributes:
        counts: up to the last sample that was given.
        trained: `counts` as of the last batch that training got; the loader sets it.
    """

    def __init__(
        self,
        sources: Sequence[StreamSource],
        encoder: RecordEncoder,
        transform: ImageTransform | None = None,
        *,
        buffer_size: int = 1000,
        seed: int = 0,
        num_samples: int | None = None,
        problems_path: Path | None = None,
    ):
        self.sources, self.encoder, self.transform = list(sources), encoder, transform
        self.buffer_size, self.seed = buffer_size, seed
        self.num_samples, self.problems_path = num_samples, problems_path
        self.counts = self.trained = StreamCounts()

    def require_readable(self) -> None:
        """Read the first record of each source that can be read again.

        Raises:
            DataError: a source is missing or cannot be read at all.
        """
        for each in self.sources:
            if not read_once(each.source.path):
                next(stream_records(each.source.path, split=each.source.split), None)

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        """Yield items as `SampleDataset` has them.

        Raises:
            DataError: a source cannot be read, or cannot be read again, or has no good record; or a record is bad.
        """
        return islice(self._passes(), self.num_samples)

    def _passes(self) -> Iterator[dict[str, torch.Tensor]]:
        self.counts, self.listed = StreamCounts(), _listed(self.problems_path)
        pipes = [path for each in self.sources for path in read_once(each.source.path)]
        for number in count():
            if number and pipes:
                ended = f"ended after {self.counts.num_samples} samples, and a pipe cannot be read again"
                raise DataError(pipes[0], f"{ended}. Feed it more records, or lower train.max_steps.")
            before = self.counts.num_samples
            self.counts.num_passes += 1
            yield from self._pass(number)
            if self.counts.num_samples == before:
                place, num_bad = self.sources[0].source.path, self.counts.num_bad_records
                raise DataError(place, f"no sample is left of {num_bad} records: all were skipped. Mend the records.")

    def _pass(self, number: int) -> Iterator[dict[str, torch.Tensor]]:
        rng = np.random.default_rng((self.seed, number))
        buffer: list[_Waiting] = []
        for waiting in self._samples():
            self.counts.num_buffered_records += waiting.is_first
            buffer.append(waiting)
            if len(buffer) >= self.buffer_size:
                yield from self._give(_drawn(buffer, rng))
        while buffer:
            yield from self._give(_drawn(buffer, rng))

    def _samples(self) -> Iterator[_Waiting]:
        """All samples of a pass, in the order of their records."""
        for each, record in self._records():
            self.counts.num_records += 1
            try:
                samples = record_samples(record, each.source, self.encoder)
            except DataError as error:
                self._bad(record, error.message)
                continue
            for index, sample in enumerate(samples):
                yield _Waiting(sample, each.images, replace(record, value=None), index == 0)

    def _records(self) -> Iterator[tuple[StreamSource, Record]]:
        open_sources = deque((each, stream_records(each.source.path, split=each.source.split)) for each in self.sources)
        while open_sources:
            each, records = open_sources.popleft()
            record = next(records, None)
            if record is not None:
                open_sources.append((each, records))
                yield each, record

    def _give(self, waiting: _Waiting) -> Iterator[dict[str, torch.Tensor]]:
        """The item of a sample that leaves the buffer; none where an image is bad."""
        sample = waiting.sample
        self.counts.num_buffered_records -= waiting.is_first
        item = {"input_ids": torch.tensor(sample.input_ids), "labels": torch.tensor(sample.labels)}
        try:
            if sample.image_slots:
                item["pixel_values"] = torch.stack([self._open(slot, waiting.images) for slot in sample.image_slots])
        except ValueError as error:
            self._bad(waiting.record, str(error))
            return
        self.counts.give(sample, waiting.is_first)
        yield item

    def _open(self, slot: ImageSlot, images: ImageFolder) -> torch.Tensor:
        assert self.transform is not None, "samples with images need a transform"
        if slot.data is None and slot.size is None:
            slot = replace(slot, path=images.resolve(slot.path))
        try:
            return self.transform.open(slot)
        except DataError as error:
            raise ValueError(f"image {error.place}: {error.message}") from None

    def _bad(self, record: Record, message: str) -> None:
        """List a bad record, or raise it."""
        if self.problems_path is None:
            raise DataError(record.place, message)
        self.counts.num_bad_records += 1
        finding = Finding.of(record.path, record.line, message)
        if finding.place not in self.listed:
            self.listed.add(finding.place)
            with self.problems_path.open("a", encoding="utf-8") as file:
                file.write(to_line(vars(finding)) + "\n")


def _drawn(buffer: list[_Waiting], rng: np.random.Generator) -> _Waiting:
    """Take one out; the last one fills its place."""
    index = int(rng.integers(len(buffer)))
    buffer[index], buffer[-1] = buffer[-1], buffer[index]
    return buffer.pop()


def _listed(path: Path | None) -> set[str]:
    """The places that a list of problems holds already: of the run that is continued."""
    found: set[str] = set()
    if path is not None and path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                found.add(Finding(**json.loads(line)).place)
            except ValueError:  # the last line, cut off by a crash
                break
    return found
