"""From a config to prepared data: what reads it, what is wrong with it, samples and packs. No model is loaded."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mmtune.conversation import Sample
from mmtune.data.check import DataReport, bad_image_samples, image_findings
from mmtune.data.choose_template import chat_template
from mmtune.data.dataset import PackedDataset, Part, SampleDataset
from mmtune.data.image_folder import ImageFolder
from mmtune.data.images import ImageTransform
from mmtune.data.mixing import Share, mix, path_and_limit
from mmtune.data.packing import pack
from mmtune.data.prepare import RecordEncoder, Source, parsed_record, prepared
from mmtune.data.records import read_records, stream_records
from mmtune.data.stream import StreamDataset, StreamSource
from mmtune.data.template import ChatTemplate
from mmtune.errors import ConfigError, DataError
from mmtune.models.language import load_tokenizer
from mmtune.models.vision import vision_outline
from mmtune.schema import Config, DataConfig, DataSource, ModelConfig, VisionConfig
from mmtune.schema_train import batch_size_of

Progress = Callable[[str, int, int | None], None]


def untold(what: str, done: int, total: int | None) -> None:
    """A progress that nobody is told."""


@dataclass
class Reader:
    """All that turns records into samples: what of a model its data depends on.

    Attributes:
        tokenizer: a fast tokenizer of transformers.
        template: the chat template.
        num_image_tokens: how many ids an image takes; 0 for text models.
        transform: from image to pixels; None for text models.
    """

    tokenizer: Any
    template: ChatTemplate
    num_image_tokens: int
    transform: ImageTransform | None


def build_reader(config: ModelConfig) -> Reader:
    """Return the reader of a model's config. Reads the tokenizer and the shape of the vision encoder, no weights."""
    tokenizer = load_tokenizer(config.llm.name_or_path, config.hub)
    template = chat_template(config.llm.chat_template, tokenizer)
    if config.vision is None:
        return Reader(tokenizer, template, 0, None)
    vision = config.vision
    outline = vision_outline(vision.source, vision.name, vision_options(vision), config.hub)
    return Reader(tokenizer, template, outline.num_tokens, ImageTransform(**outline.preprocessing))


def vision_options(config: VisionConfig) -> dict[str, Any]:
    """Return the keys of a vision config that its source takes, where they are set."""
    keys = ("pretrained", "feature_layer", "image_size", "grid")
    return {key: getattr(config, key) for key in keys if getattr(config, key) is not None}


def build_dataset(config: Config, reader: Reader, progress: Progress = untold) -> tuple[SampleDataset, DataReport]:
    """Read, check and mix the training data.

    Args:
        config: of the run.
        reader: of its model.
        progress: told what is done and how much, now and then.

    Returns:
        The samples of an epoch without those that are bad, and what became of all records. Whether bad records are an
        error is for the caller: see `require_good`.

    Raises:
        DataError: a source cannot be read at all.
    """
    encoder = build_encoder(config.data, reader)
    report = DataReport()
    parts = []
    for given in config.data.train:
        source = source_of(given)
        store = prepared(source, encoder, partial(_tell_records, progress, source.path))
        parts.append(Part(store, image_folder_of(given, source)))
    shares = [_share(given) for given in config.data.train]
    order = mix([len(part.store) for part in parts], shares, config.train.seed)
    order = _without_bad(parts, order, config, report, progress)
    dataset = SampleDataset(parts, order, reader.transform)
    report.num_samples = len(dataset)
    report.num_cut = int((dataset.values("num_cut") > 0).sum())
    return dataset, report


def validation_config(config: Config) -> Config:
    """Return the config whose training data is what `config` measures, to be read and checked the same way."""
    return replace(config, data=replace(config.data, train=config.data.validation, validation=[]))


def build_stream(config: Config, reader: Reader, first_step: int, problems_path: Path) -> StreamDataset:
    """Return the samples of a run whose sources are streamed; nothing is read but the first record of each.

    Args:
        config: of the run.
        reader: of its model.
        first_step: where the run continues; a later start has another order.
        problems_path: where bad records are listed, where the config says that they are skipped.

    Raises:
        DataError: a source cannot be read at all.
        ConfigError: a path draws a number of samples.
    """
    sources = []
    for number, given in enumerate(config.data.train):
        source, limit = source_of(given), path_and_limit(given.path)[1]
        if limit is not None:
            message = (
                f"a stream has no number of samples to draw {limit} from. Leave '#{limit}' out, or set stream: false."
            )
            raise ConfigError(f"data.train[{number}].path", message)
        sources.append(StreamSource(source, image_folder_of(given, source)))
    train = config.train
    samples_per_step = batch_size_of(config) * train.gradient_accumulation_steps
    stream = StreamDataset(
        sources,
        build_encoder(config.data, reader),
        reader.transform,
        buffer_size=config.data.shuffle_buffer,
        seed=train.seed + first_step,
        num_samples=(train.max_steps - first_step) * samples_per_step,
        problems_path=problems_path if config.data.on_bad_record == "skip" else None,
    )
    stream.require_readable()
    return stream


def image_folder_of(given: DataSource, source: Source) -> ImageFolder:
    """Return the folder that the images of a source are in."""
    folder = Path(given.image_folder) if given.image_folder is not None else Path(source.path).parent
    return ImageFolder(folder, given.follow_links)


def _tell_records(progress: Progress, path: str, count: int) -> None:
    progress(f"reading {path}", count, None)


def build_encoder(config: DataConfig, reader: Reader) -> RecordEncoder:
    """Return what encodes records for a model."""
    return RecordEncoder(reader.tokenizer, reader.template, reader.num_image_tokens, config.max_length)


def source_of(given: DataSource) -> Source:
    """Return how a source of the config is read."""
    path, _ = path_and_limit(given.path)
    return Source(path, given.format, given.columns, given.prompt, given.split, given.system)


def _share(given: DataSource) -> Share:
    limits = [limit for limit in (given.limit, path_and_limit(given.path)[1]) if limit is not None]
    return Share(min(limits, default=None), given.repeat, given.weight)


def _without_bad(
    parts: list[Part], order: np.ndarray, config: Config, report: DataReport, progress: Progress
) -> np.ndarray:
    """Check the images of the samples in an order; count and list; return the order without the bad ones."""
    offset, is_bad = 0, np.zeros(sum(len(part.store) for part in parts), dtype=bool)
    for part, given in zip(parts, config.data.train, strict=True):
        samples = order[(order >= offset) & (order < offset + len(part.store))] - offset

        def tell(done: int, total: int, path: str = given.path) -> None:
            progress(f"checking images of {path}", done, total)

        bad = bad_image_samples(part, samples, config.data.check_images, tell)
        is_bad[offset + np.array(list(bad), dtype=np.int64)] = True
        problems = [*part.store.problems(), *image_findings(part, bad)]
        num_records = part.store.facts["num_records"]
        report.num_records += num_records
        report.problems += problems
        report.sources.append(
            {
                "path": given.path,
                "content": part.store.facts["content"],
                "num_records": num_records,
                "num_bad_records": len(problems),
                "num_samples": len(part.store),
                "samples_hash": part.store.samples_hash(len(part.store)),
                "num_samples_in_an_epoch": int((~is_bad[offset + samples]).sum()),
            }
        )
        offset += len(part.store)
    return order[~is_bad[order]]


def require_good(
    config: DataConfig, dataset: SampleDataset, report: DataReport, listed_in: Path | str, key: str = "data.train"
) -> None:
    """Hold that nothing is left out unless the config says so; `key` is the one that names the data.

    Raises:
        DataError: there are bad records and `on_bad_record` is `error`; the message is that of the first one.
        ConfigError: no sample is left.
    """
    if report.problems and config.on_bad_record == "error":
        first, *others = report.problems
        more = ""
        if others:
            more = f" {len(others)} more: {listed_in} lists all; data.on_bad_record=skip leaves them out."
        raise DataError(first.place, f"{first.message}{more}")
    if not len(dataset):
        raise ConfigError(key, f"no sample is left of {report.num_records} records: all were skipped.")


def packed(config: Config, dataset: SampleDataset) -> SampleDataset | PackedDataset:
    """Return the rows that are trained: the samples, or packs of them where the config asks."""
    if not config.data.pack_to_max_length:
        return dataset
    return PackedDataset(dataset, pack(dataset.lengths, config.data.max_length, config.train.seed))


def inspect_samples(config: Config, reader: Reader) -> Iterator[Sample]:
    """Yield the encoded samples of a config's data as the files have them; nothing is cached, no image is opened.

    Raises:
        DataError: a record is bad.
    """
    encoder = build_encoder(config.data, reader)
    for given in config.data.train:
        source = source_of(given)
        read = stream_records if given.stream else read_records
        for record in read(source.path, split=source.split):
            (samples,) = encoder.samples([parsed_record(record, source)], [record.place])
            if isinstance(samples, DataError):
                raise samples
            yield from samples
