"""Where an interrupted run continues, and whether it can: what may differ from before, and what must not."""

import itertools
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmtune.build import base_models
from mmtune.data.dataset import SampleDataset
from mmtune.errors import CheckpointError
from mmtune.processes import num_processes
from mmtune.run_folder import (
    CHECKPOINT_PREFIX,
    DATA_FILE,
    MANIFEST_FILE,
    SET_ASIDE_PREFIX,
    VERSIONS_FILE,
    checkpoints,
    is_complete,
    library_versions,
    read_config,
    read_json,
    require_complete,
)
from mmtune.schema import Config, ModelConfig
from mmtune.training.differences import config_differences, is_allowed, meaning, shown
from mmtune.training.held_out import FRACTION

log = logging.getLogger(__name__)
SHOWN_DIFFERENCES = 8


@dataclass
class ResumePoint:
    """A checkpoint that a run continues from.

    Attributes:
        folder: of the checkpoint.
        step: optimizer steps done.
        is_named: the user named it; else it is the newest sound one.
        notes: what differs from before and is allowed, each with what follows from it.
    """

    folder: Path
    step: int
    is_named: bool = False
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
            if before.get("validation", {}).get("from") == FRACTION:
                self.notes.append(
                    f"{FRACTION} is drawn anew from all samples: some that are measured from here on were trained on,"
                    " so held-out figures look better than before and do not compare; data.validation stays as it is"
                )

    def log_notes(self) -> None:
        """Say where the run continues and what is not as it was."""
        log.info("continuing from %s at step %d", self.folder, self.step)
        for note in self.notes:
            log.warning("%s", note)


def point_to_resume(folder: Path, config: Config, resume: bool | str | Path) -> ResumePoint | None:
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
        if path is None and is_complete(folder):
            message = "is a complete run, and no checkpoint of it is left to go on from."
            raise CheckpointError(folder, f"{message} Start another run from its weights: model.init_from={folder}.")
        if path is None:
            log.info("%s has no complete checkpoint: starting at step 0", folder)
            return None
    else:
        path = Path(str(resume))
        if not path.is_dir():
            message = f"no such checkpoint (resolved to {path.resolve()}). --resume alone takes the newest one."
            raise CheckpointError(path, message)
        require_complete(path, check_hashes=True)
    manifest = read_json(path / MANIFEST_FILE)
    step = manifest.get("step")
    if step is None:
        raise CheckpointError(path, "not a checkpoint: it cannot be continued. Name a checkpoint-N in a run folder.")
    point = ResumePoint(path, step, is_named=resume is not True)
    before = read_config(path)
    differences = config_differences(before, config)
    wrong = [shown(key, *pair) for key, pair in differences.items() if not is_allowed(key, differences, config)]
    wrong += _other_models(path, config.model)
    _require_processes(path, manifest.get("world_size", 1))
    _refuse(path, "was made with another config", wrong)
    point.notes += [f"{shown(key, *differences[key])}: {meaning(key)}" for key in differences if meaning(key)]
    point.notes += _other_versions(path)
    return point


def _require_processes(checkpoint: Path, before: int) -> None:
    """Hold that as many processes go on as there were: each has random states of its own."""
    if before == num_processes():
        return
    how = f"Start {before} with torchrun" if before > 1 else "Start it without torchrun"
    mend = f"{how}, or start another run from its weights: model.init_from={checkpoint}."
    number = "1 process" if before == 1 else f"{before} processes"
    raise CheckpointError(checkpoint, f"was trained by {number} (got {num_processes()}). {mend}")


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


def set_later_ones_aside(folder: Path, chosen: Path) -> None:
    """Rename the checkpoints after an earlier one that was chosen: the next `--resume` must not take them."""
    if chosen.resolve().parent != folder.resolve():
        return
    step = int(chosen.name.removeprefix(CHECKPOINT_PREFIX))
    for number, path in checkpoints(folder):
        if number > step:
            target = _free_name(path.with_name(f"{SET_ASIDE_PREFIX}{path.name}"))
            log.warning("%s lies after %s: it is now %s", path.name, chosen.name, target.name)
            path.rename(target)


def _free_name(path: Path) -> Path:
    """The path, or where that is taken the first of `path-2`, `path-3`, ... that is not."""
    numbered = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    return path if not path.exists() else next(each for each in numbered if not each.exists())


def _data_differences(before: list[dict[str, Any]], samples: SampleDataset) -> tuple[list[str], list[str]]:
    """Return what must not differ of the sources, and what was appended."""
    wrong, appended = [], []
    both = zip(before, samples.parts, strict=False)  # sources that are new or gone are told below
    for number, (old, part) in enumerate(both):
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
        listed = "; ".join(differences[:SHOWN_DIFFERENCES]) + (f"; and {more} more" if more > 0 else "")
        raise CheckpointError(checkpoint, f"{what}: {listed}. Set these back, or start a new run.")
