"""Where an interrupted run continues, and whether it can: what may differ from before, and what must not."""

import logging
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmtune.build import base_models
from mmtune.config import to_values
from mmtune.data.dataset import SampleDataset
from mmtune.errors import CheckpointError
from mmtune.run_folder import (
    CHECKPOINT_PREFIX,
    DATA_FILE,
    MANIFEST_FILE,
    VERSIONS_FILE,
    checkpoints,
    library_versions,
    read_config,
    read_json,
    require_complete,
)
from mmtune.schema import Config, ModelConfig

log = logging.getLogger(__name__)
SHOWN_DIFFERENCES = 8

FREE = (
    "train.output_dir",
    "train.logging_steps",
    "train.save_steps",
    "train.save_total_limit",
    "train.max_nonfinite_steps",
    "train.eval_steps",
    "train.per_device_eval_batch_size",
    "train.early_stopping_patience",
    "train.early_stopping_threshold",
    "train.report_to",
    "train.run_name",
    "train.project",
    "train.alarms",
    "train.dataloader_num_workers",
    "train.dataloader_prefetch_factor",
    "data.check_images",
)
"""Keys that change no weight."""

ROUNDED = (
    "train.gradient_checkpointing",
    "train.gradient_checkpointing_fraction",
    "train.fused_lora",
    "train.use_liger_kernel",
    "train.recompute_activations",
    "train.device",
    "model.llm.attn_implementation",
    "data.padding_free",
    "data.cache_vision_features",
)
"""Keys that change weights by rounding alone: the mathematics is the same."""

EXTENDING = ("train.num_train_epochs", "train.max_steps")
"""Keys that make a run longer or shorter."""

ELSEWHERE = ("model.llm.name_or_path", "model.vision.name", "model.vision.pretrained", "model.hub")
"""Keys of files that may have moved: their content is compared."""

SPLIT = ("train.per_device_train_batch_size", "train.gradient_accumulation_steps", "train.global_batch_size")
"""Keys that say what a step trains on: the product of the first two, or the third."""


OF_THE_MIX = ("limit", "repeat", "weight", "stream")
"""Keys of a source that say how much of it an epoch holds."""


@dataclass
class ResumePoint:
    """A checkpoint that a run continues from.

    Attributes:
        folder: of the checkpoint.
        step: optimizer steps done.
        notes: what differs from before and is allowed, each with what follows from it.
    """

    folder: Path
    step: int
    notes: list[str] = field(default_factory=list)

    def check_data(self, samples: SampleDataset | None) -> None:
        """Compare the data with that of the checkpoint; appended data is noted.

        Raises:
            CheckpointError: other data; the message lists what differs.
        """
        before = read_json(self.folder / DATA_FILE)
        if samples is None or "num_samples" not in before:
            return  # a stream: it says itself that its resume is approximate
        wrong, appended = _data_differences(before["sources"], samples)
        if len(samples) != before["num_samples"] and not appended and not wrong:
            wrong = [f"{before['num_samples']} samples an epoch -> {len(samples)}: others are skipped than before"]
        _refuse(self.folder, "was trained on other data", wrong)
        if appended:
            self.notes.append(
                f"{' and '.join(appended)}: {before['num_samples']} -> {len(samples)} samples an epoch. The run goes on"
                f" at step {self.step} as if it had had them from the start: the epoch under way has a new order, in"
                " which some of its samples come again and others not at all"
            )

    def log_notes(self) -> None:
        """Say where the run continues and what is not as it was."""
        log.info("continuing from %s at step %d", self.folder, self.step)
        for note in self.notes:
            log.warning("%s", note)


def point_to_resume(folder: Path, config: Config, resume: bool | str) -> ResumePoint | None:
    """Return where a run continues; None: at its beginning.

    Args:
        folder: of the run.
        config: as it is now.
        resume: False starts anew, True takes the newest sound checkpoint, a path that one.

    Raises:
        CheckpointError: no checkpoint can be read, or it was made with another config.
    """
    if not resume:
        return None
    if resume is True:
        path = _newest_sound(folder)
        if path is None:
            log.info("%s has no complete checkpoint: starting at step 0", folder)
            return None
    else:
        path = Path(str(resume))
        require_complete(path, check_hashes=True)
        _set_later_ones_aside(folder, path)
    manifest = read_json(path / MANIFEST_FILE)
    step = manifest.get("step")
    if step is None:
        raise CheckpointError(path, "not a checkpoint: it cannot be continued. Name a checkpoint-N in a run folder.")
    point = ResumePoint(path, step)
    before = read_config(path)
    differences = config_differences(before, config)
    wrong = [_shown(key, *pair) for key, pair in differences.items() if not is_allowed(key, differences, config)]
    wrong += _other_models(path, config.model)
    if manifest.get("world_size", 1) != num_processes():
        wrong.append(f"processes: {manifest['world_size']} -> {num_processes()}")
    _refuse(path, "was made with another config", wrong)
    point.notes += [f"{_shown(key, *differences[key])}: {_meaning(key)}" for key in differences if _meaning(key)]
    point.notes += _other_versions(path)
    return point


def num_processes() -> int:
    """Return how many processes train together, as torchrun tells each of them."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def _newest_sound(folder: Path) -> Path | None:
    """The newest checkpoint whose files are those of its manifest; what is wrong with newer ones is said."""
    broken = []
    for _, path in reversed(checkpoints(folder)):
        try:
            require_complete(path, check_hashes=True)
            return path
        except CheckpointError as error:
            broken.append(path.name)
            log.warning("passing over %s: %s", path.name, error)
    if broken:
        message = (
            f"none of its checkpoints can be read ({', '.join(broken)}). --overwrite deletes them and starts anew."
        )
        raise CheckpointError(folder, message)
    return None


def _set_later_ones_aside(folder: Path, chosen: Path) -> None:
    """Rename the checkpoints after an earlier one that was chosen: the next `--resume` must not take them."""
    if chosen.resolve().parent != folder.resolve():
        return
    step = int(chosen.name.removeprefix(CHECKPOINT_PREFIX))
    for number, path in checkpoints(folder):
        if number > step:
            target = path.with_name(f"set-aside-{path.name}")
            log.warning("%s lies after %s: it is now %s", path.name, chosen.name, target.name)
            path.rename(target)


def config_differences(before: Config, now: Config) -> dict[str, tuple[Any, Any]]:
    """Return the keys on which two configs differ, with both values."""
    old, new = _flat(to_values(before)), _flat(to_values(now))
    keys = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    return {key: (old.get(key), new.get(key)) for key in keys}


def is_allowed(key: str, differences: dict[str, tuple[Any, Any]], config: Config) -> bool:
    """Whether a run may go on although a key differs."""
    if key in SPLIT:
        is_ordered_by_batch = config.data.group_by_length or config.data.max_tokens_per_batch is not None
        now = vars(config.train)
        sizes = [differences.get(key, (now[_last(key)],) * 2) for key in SPLIT]
        before, after = (_global_batch(*split) for split in zip(*sizes, strict=True))
        return before == after and not is_ordered_by_batch
    source = re.fullmatch(r"data\.train\[\d+\]\.(\w+).*", key)
    if source is not None:  # what its records are is compared by their content
        return source[1] not in OF_THE_MIX or differences[key][0] is None
    return changes_nothing(key) or key in (*ROUNDED, *EXTENDING, *ELSEWHERE)


def changes_nothing(key: str) -> bool:
    """Whether a key has no say in the weights of a run."""
    return key in FREE or key == "sample" or key.startswith("sample.")


def _global_batch(size: int | str, steps: int, whole: int | None) -> int:
    return whole if whole is not None else int(size) * steps


def extends(differences: dict[str, tuple[Any, Any]]) -> bool:
    """Whether a run with these differences is longer than before, or has more data."""
    return any(key in EXTENDING or key.startswith("data.train[") for key in differences)


def _last(key: str) -> str:
    return key.rpartition(".")[2]


def _meaning(key: str) -> str | None:
    if key in EXTENDING:
        return "the learning rate follows the schedule of the new length from here on"
    if key in ROUNDED or key in SPLIT:
        return "results are the same but for rounding"
    return None


def _data_differences(before: list[dict[str, Any]], samples: SampleDataset) -> tuple[list[str], list[str]]:
    """Return what must not differ of the sources, and what was appended."""
    wrong, appended = [], []
    for number, (old, part) in enumerate(zip(before, samples.parts, strict=False)):
        name, store = f"data.train[{number}] ({part.store.source})", part.store
        if store.samples_hash(old["num_samples"]) != old["samples_hash"]:
            wrong.append(f"{name}: its {old['num_samples']} samples have changed")
        elif len(store) > old["num_samples"]:
            appended.append(f"{name} has {len(store) - old['num_samples']} samples more")
    if len(samples.parts) < len(before):
        wrong.append(f"data.train has {len(samples.parts)} sources, it had {len(before)}")
    added = samples.parts[len(before) :]
    return wrong, appended + [f"{part.store.source} is new" for part in added]


def _other_models(checkpoint: Path, config: ModelConfig) -> list[str]:
    recorded, now = read_json(checkpoint / VERSIONS_FILE)["base_models"], base_models(config)
    return [
        f"{part}: other weights in {now[part]['path']}"
        for part, facts in recorded.items()
        if part in now and now[part]["hash"] != facts["hash"]
    ]


def _other_versions(checkpoint: Path) -> list[str]:
    before, now = read_json(checkpoint / VERSIONS_FILE)["versions"], library_versions()
    changed = [f"{name} {before[name]} -> {now.get(name)}" for name in before if now.get(name) != before[name]]
    return [f"{', '.join(changed)}: results may differ in rounding"] if changed else []


def _refuse(checkpoint: Path, what: str, differences: list[str]) -> None:
    if differences:
        more = len(differences) - SHOWN_DIFFERENCES
        shown = "; ".join(differences[:SHOWN_DIFFERENCES]) + (f"; and {more} more" if more > 0 else "")
        raise CheckpointError(checkpoint, f"{what}: {shown}. Set these back, or start a new run.")


def _shown(key: str, before: Any, now: Any) -> str:
    return f"{key}: {before} -> {now}"


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(values, dict) and values:
        pairs = [_flat(value, f"{prefix}.{key}" if prefix else str(key)) for key, value in values.items()]
    elif isinstance(values, list) and values:
        pairs = [_flat(value, f"{prefix}[{number}]") for number, value in enumerate(values)]
    else:
        return {prefix: values}
    return {key: value for part in pairs for key, value in part.items()}
