"""What the files of a training run say at this moment, finished or not. How it is shown is in `web_runs.py`.

All files are read by what wrote them: the log by `training/callbacks.py`, the rest by `run_folder.py`. Any of them
may be missing, since a run under way has not written it yet.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from mmtune.errors import MMTuneError
from mmtune.run_folder import (
    CHECKPOINT_PREFIX,
    CONFIG_FILE,
    DATA_FILE,
    MANIFEST_FILE,
    SET_ASIDE_PREFIX,
    VERSIONS_FILE,
    newest_checkpoint,
    read_config,
    read_json,
)
from mmtune.schema import Config
from mmtune.training.callbacks import LOG_FILE, read_log
from mmtune.training.plot import points
from mmtune.training.run_lock import is_running
from mmtune.training.samples import SAMPLES_FILE

MAX_DEPTH = 4
"""Folders below the one with the runs: `runs/RECIPE/STEP` are 2."""
MAX_RUNS = 500

State = Literal["running", "complete", "stopped"]


def find_runs(root: Path) -> list[str]:
    """Return the folders of runs below a folder, relative to it, the one that wrote last first. Links are not followed.

    Args:
        root: the folder; where it is itself a run, that is `.`.
    """
    found = sorted(_run_folders(root), key=_last_written, reverse=True)
    return [folder.relative_to(root).as_posix() for folder in found[:MAX_RUNS]]


def _run_folders(root: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(root):
        path = Path(place)
        if LOG_FILE in files or {CONFIG_FILE, VERSIONS_FILE} <= {*files}:
            folders.clear()
            yield path
        elif len(path.relative_to(root).parts) >= MAX_DEPTH:
            folders.clear()
        folders[:] = [name for name in folders if not name.startswith((".", CHECKPOINT_PREFIX, SET_ASIDE_PREFIX))]


def _last_written(folder: Path) -> float:
    times = [path.stat().st_mtime for path in (folder / LOG_FILE, folder / CONFIG_FILE) if path.is_file()]
    return max(times, default=0.0)


@dataclass(frozen=True)
class Samples:
    """A question that was asked while training.

    Attributes:
        question: the text.
        images: files.
        answers: step and answer.
    """

    question: str
    images: tuple[str, ...]
    answers: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class RunView:
    """A run at this moment.

    Attributes:
        folder: of it.
        state: whether it trains now, is complete, or ended before its end.
        entries: lines of its log.
        config: None where it has not been written yet.
        versions: verb, libraries and base models; empty where it has not been written yet.
        data: what became of the data; empty where it has not been written yet.
        manifest: of a complete run; else empty.
    """

    folder: Path
    state: State
    entries: list[dict[str, Any]]
    config: Config | None = None
    versions: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    manifest: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def steps(self) -> list[dict[str, Any]]:
        """The lines of optimizer steps."""
        return [entry for entry in self.entries if "learning_rate" in entry]

    @property
    def alarms(self) -> list[dict[str, Any]]:
        """The lines of alarms."""
        return [entry for entry in self.entries if "alarm" in entry]

    @property
    def step(self) -> int:
        """The last step that was logged."""
        return self.entries[-1]["step"] if self.entries else 0

    @property
    def seconds(self) -> float:
        """Of training so far."""
        return self.entries[-1]["seconds"] if self.entries else 0.0

    @property
    def share_done(self) -> float | None:
        """From 0 to 1; None where it is not known how far the run is to go."""
        if self.state == "complete":
            return 1.0
        if self.config is None or not self.entries:
            return None
        train, last = self.config.train, self.entries[-1]
        done = last["step"] / train.max_steps if train.max_steps > 0 else last["epoch"] / train.num_train_epochs
        return min(done, 1.0)

    @property
    def total_steps(self) -> int | None:
        """How many steps it will have, as far as that is known."""
        if self.config is not None and self.config.train.max_steps > 0:
            return self.config.train.max_steps
        done = self.share_done
        return None if not done else round(self.step / done)

    @property
    def seconds_left(self) -> float | None:
        """At the speed so far; None where nothing is known, or nothing is left."""
        done = self.share_done
        if self.state != "running" or not done or done == 1:
            return None
        return self.seconds * (1 - done) / done

    def curve(self, key: str) -> list[tuple[int, float]]:
        """Return step and value of each line that has a figure, such as `loss`, `eval_loss` or `grad_norm`."""
        return points(self.entries, key)

    def samples(self) -> list[Samples]:
        """Return the questions that were asked while training, with their answers so far."""
        found: dict[tuple[str, tuple[str, ...]], list[tuple[int, str]]] = {}
        for entry in read_log(self.folder / SAMPLES_FILE):
            found.setdefault((entry["question"], tuple(entry["images"])), []).append((entry["step"], entry["answer"]))
        return [Samples(question, images, tuple(answers)) for (question, images), answers in found.items()]


def read_run(folder: Path) -> RunView:
    """Return a run at this moment; what is missing or half written is left out."""
    manifest = _json(folder / MANIFEST_FILE)
    state: State = "complete" if manifest else "running" if is_running(folder) else "stopped"
    settled = next((place for place in _with_settings(folder) if (place / CONFIG_FILE).is_file()), folder)
    return RunView(
        folder=folder,
        state=state,
        entries=read_log(folder / LOG_FILE),
        config=_config(settled),
        versions=_json(settled / VERSIONS_FILE),
        data=_json(settled / DATA_FILE),
        manifest=manifest,
    )


def _with_settings(folder: Path) -> Iterator[Path]:
    """The places where a run says what it is: its folder, or a checkpoint of a run that an older version began."""
    yield folder
    newest = newest_checkpoint(folder)
    if newest is not None:
        yield newest


def _config(folder: Path) -> Config | None:
    try:
        return read_config(folder)
    except MMTuneError:
        return None


def _json(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except MMTuneError:
        return {}


def fingerprint(folder: Path) -> tuple[Any, ...]:
    """Return what changes when a run has written something that a page shows; cheap, so that it can be asked often."""
    names: Sequence[str] = (LOG_FILE, SAMPLES_FILE, CONFIG_FILE, MANIFEST_FILE)
    stats = [(folder / name).stat() if (folder / name).is_file() else None for name in names]
    return (*((stat.st_size, stat.st_mtime_ns) if stat else None for stat in stats), is_running(folder))
