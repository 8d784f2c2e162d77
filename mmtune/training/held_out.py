"""The data that a run measures and does not train: held out of the training data, or from files of its own."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmtune.build_data import Reader, build_dataset, require_good, validation_config
from mmtune.data.check import DataReport
from mmtune.data.dataset import SampleDataset
from mmtune.data.holding_out import hold_out
from mmtune.data.part import Part
from mmtune.errors import ConfigError
from mmtune.progress import Bars
from mmtune.schema import Config
from mmtune.schema_evaluation import TRAINING_METRICS, criterion, source_names
from mmtune.training.problems import VALIDATION_PROBLEMS, list_problems

log = logging.getLogger(__name__)
FRACTION, FILES = "data.validation_fraction", "data.validation"


@dataclass(frozen=True)
class HeldOut:
    """What is measured.

    Attributes:
        samples: each once.
        names: of its sources, as metrics call them.
        place: the config key that says what it is.
        report: of its files; None where it is a share of the training data.
    """

    samples: SampleDataset
    names: list[str]
    place: str
    report: DataReport | None = None

    @property
    def is_share(self) -> bool:
        """Whether it is a share of the training data."""
        return self.place == FRACTION

    def facts(self) -> dict[str, Any]:
        """Return what `data.json` says."""
        samples, report = self.samples, self.report
        sizes = zip(self.names, samples.part_sizes(), strict=True)
        sources = [{"name": name, "num_samples": size} for name, size in sizes]
        facts: dict[str, Any] = {
            "from": self.place,
            "num_samples": len(samples),
            "num_images": sum(len(samples.images_of(number)) for number in range(len(samples.parts))),
            "num_tokens": int(samples.lengths.sum()),
            "num_supervised_tokens": int(samples.values("num_supervised").sum()),
            "sources": sources,
        }
        if report is not None:
            facts["num_records"] = report.num_records
            facts["sources"] = [{**theirs, **ours} for theirs, ours in zip(report.sources, sources, strict=True)]
            facts["skipped"] = [{"place": each.place, "reason": each.message} for each in report.problems]
        return facts


def share_held_out(config: Config, dataset: SampleDataset) -> tuple[SampleDataset, HeldOut]:
    """Return the samples of an epoch without those that are held out, and these.

    Raises:
        ConfigError: all samples show the same images.
    """
    fraction = config.data.validation_fraction
    assert fraction is not None
    split = hold_out(dataset, fraction, config.train.seed)
    if split is None:
        message = "nothing can be held out: all samples belong to the same images or texts."
        raise ConfigError(FRACTION, f"{message} Name other files as {FILES}.")
    trained, held = split
    return trained, HeldOut(held, source_names(config.data.train), FRACTION)


def read_held_out(config: Config, reader: Reader, folder: Path) -> HeldOut:
    """Read and check the files of `data.validation` as training data is.

    Args:
        config: of the run.
        reader: of its model.
        folder: of the run, where bad records are listed.

    Raises:
        DataError: a source cannot be read, or records are bad and `data.on_bad_record` is `error`.
        ConfigError: no sample is left.
    """
    with Bars() as bars:
        dataset, report = build_dataset(validation_config(config), reader, bars)
    path = folder / VALIDATION_PROBLEMS
    list_problems(path, report)
    require_good(config.data, dataset, report, path, FILES)
    held_out = HeldOut(dataset, source_names(config.data.validation), FILES, report)
    log_held_out(held_out)
    if report.problems:
        log.warning("skipped %d records of %s; %s lists them", len(report.problems), FILES, path.name)
    return held_out


def require_measured(config: Config, held_out: HeldOut | None) -> None:
    """Check that the metric which decides will be there.

    Raises:
        ConfigError: it is that of a source of which nothing is held out.
    """
    metric = criterion(config.train)
    if metric is None or metric in TRAINING_METRICS:
        return
    assert held_out is not None, "the config refuses it"
    for name, count in zip(held_out.names, held_out.samples.part_sizes(), strict=True):
        if not count and metric.startswith(f"eval_{name}_"):
            message = f"nothing of '{name}' is held out, so there is no {metric}. Raise {FRACTION}, or take eval_loss."
            raise ConfigError("train.metric_for_best_model", message)


def warn_of_shared_images(trained: SampleDataset, held_out: HeldOut) -> None:
    """Say how many validation samples show an image that is trained on; their figures tell little of other images."""
    if held_out.is_share:
        return
    known = set()
    for number, part in enumerate(trained.parts):
        known |= {_place(part, image) for image in trained.images_of(number).tolist()}
    num_shared = 0
    for index in range(len(held_out.samples)):
        number, local = held_out.samples.locate(index)
        part = held_out.samples.parts[number]
        num_shared += any(_place(part, image) in known for image in part.store.image_ids(local).tolist())
    if num_shared:
        message = "%d of %d validation samples show images that are trained on: they tell little of other images"
        log.warning(message, num_shared, len(held_out.samples))


def _place(part: Part, image_id: int) -> tuple[str, int]:
    """The file and the byte of an image, without a look at the disk."""
    slot = part.store.image(image_id)
    path = slot.path if slot.size is not None else os.path.normpath(os.path.join(part.images.root, slot.path))
    return path, slot.offset


def log_held_out(held_out: HeldOut) -> None:
    """Say what is measured."""
    facts = held_out.facts()
    numbers = (facts["num_samples"], facts["num_images"], facts["num_supervised_tokens"])
    log.info("validation: %d samples with %d images, %d supervised tokens", *numbers)
