"""The folder of a run before it starts: done already, ready to write to, cleared, or refused."""

import logging
import shutil
from pathlib import Path

from mmtune.durable import write_errors_named
from mmtune.errors import CheckpointError, ConfigError
from mmtune.run_folder import CONFIG_FILE, MANIFEST_FILE, is_complete, newest_checkpoint, read_config
from mmtune.schema import Config
from mmtune.training.callbacks import LOG_FILE
from mmtune.training.checkpoints import clear_work
from mmtune.training.differences import changes_nothing, config_differences, extends, is_allowed, shown
from mmtune.training.problems import PROBLEM_FILES
from mmtune.training.resume import ResumePoint, set_later_ones_aside
from mmtune.training.run_lock import LOCK_FILE

log = logging.getLogger(__name__)


def is_done(folder: Path, config: Config, *, resume: bool) -> bool:
    """Whether the folder holds a complete run of this config; with `resume`, one of fewer steps may go on.

    Raises:
        CheckpointError: it holds a complete run of another config.
    """
    if not is_complete(folder):
        return False
    found = config_differences(read_config(folder), config)
    differences = {key: pair for key, pair in found.items() if not changes_nothing(key)}
    if not differences:
        return True
    if resume and extends(differences) and all(is_allowed(key, differences, config) for key in differences):
        return False
    listed = ", ".join(shown(key, *pair) for key, pair in list(differences.items())[:4])
    message = f"holds a complete run with another config ({listed}). Take another train.output_dir, or --overwrite."
    raise CheckpointError(folder, message)


def make_folder(folder: Path) -> None:
    """Make the folder of a run, and try to write to it.

    Raises:
        ConfigError: that cannot be.
    """
    if folder.is_file():
        raise ConfigError("train.output_dir", f"{folder} is a file. Name a folder.")
    with write_errors_named(folder, "train.output_dir", "Mend its mode, or name another folder."):
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".write-test"
        probe.write_bytes(b"")
        probe.unlink()


def clear_folder(folder: Path, *, resume: bool, overwrite: bool) -> None:
    """Bring the folder of a run, which is locked, into the state to start or continue from.

    Raises:
        CheckpointError: it holds an incomplete run, and nobody said what becomes of it.
        ConfigError: it is to be deleted, and holds no run.
    """
    if overwrite:
        _delete_run(folder)
    clear_work(folder)
    if not resume and _names(folder) - {*PROBLEM_FILES}:
        newest = newest_checkpoint(folder)
        hint = f"--resume continues from {newest.name}; " if newest else "it has no checkpoint; "
        message = f"holds files of an incomplete run. {hint}--overwrite deletes it and starts anew."
        raise CheckpointError(folder, message)


def begin_writing(folder: Path, point: ResumePoint | None) -> None:
    """Let a folder be that of a run under way, once nothing can refuse it any more.

    A complete run that goes on is not complete until its new end.

    Args:
        folder: of the run.
        point: where it continues; later checkpoints than one that was named are set aside.
    """
    (folder / MANIFEST_FILE).unlink(missing_ok=True)
    if point is not None and point.is_named:
        set_later_ones_aside(folder, point.folder)


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {LOCK_FILE}


def _delete_run(folder: Path) -> None:
    """Delete what a run's folder holds, and no other: a wrong output_dir must not cost somebody's files."""
    files = (CONFIG_FILE, LOG_FILE, *PROBLEM_FILES)
    is_run = any((folder / name).exists() for name in files) or any(folder.glob("checkpoint-*"))
    if _names(folder) and not is_run:
        message = f"{folder.resolve()} holds files but no run, so --overwrite leaves it alone. Name another folder."
        raise ConfigError("train.output_dir", message)
    for name in _names(folder):
        path = folder / name
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
