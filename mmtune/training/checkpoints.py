"""Checkpoints that are complete or absent: written beside, brought to the disk, renamed; old ones are deleted.

What a checkpoint holds is for the trainer. Layout: docs/run_folder.md.
"""

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

from mmtune.durable import is_disk_full, sync_folder
from mmtune.errors import CheckpointError
from mmtune.processes import rank
from mmtune.run_folder import CHECKPOINT_PREFIX, checkpoints, newest_checkpoint, write_manifest

log = logging.getLogger(__name__)
WORK_FOLDER = ".saving"
"""Where checkpoints are written and deleted, in the run folder: nothing in it is whole."""


class CheckpointWriter:
    """Writes the checkpoints of a run.

    The files are written on the training thread, when the weights stand still. What takes long on a slow disk (their
    hashes, and waiting until the disk has them) happens on a thread of its own while training goes on; the next
    checkpoint waits for it. So what is saved is exactly the state of its step.

    Args:
        folder: of the run.
        limit: how many checkpoints are kept; None keeps all.
        world_size: processes of the run, for the manifests.
    """

    def __init__(self, folder: Path, limit: int | None = None, world_size: int = 1):
        self.folder, self.limit, self.world_size = folder, limit, world_size
        self.work_folder = folder / WORK_FOLDER
        self.thread: Thread | None = None
        self.error: BaseException | None = None

    @contextmanager
    def writing(self, step: int, note_best: Callable[[], int | None] = lambda: None) -> Iterator[Path]:
        """Give the folder that the files of a checkpoint are written into; it is finished beside training.

        Args:
            step: optimizer steps done.
            note_best: called when the checkpoint is in its place; returns the step of the best one, which stays.

        Raises:
            CheckpointError: it cannot be written, or the one before could not be finished.
        """
        self.wait()
        beside = self.work_folder / f"{CHECKPOINT_PREFIX}{step}"
        with self.errors_named():
            shutil.rmtree(beside, ignore_errors=True)
            beside.mkdir(parents=True)
            yield beside
        self.thread = Thread(target=self._finish, args=(beside, step, note_best), name=f"save {step}")
        self.thread.start()

    @contextmanager
    def errors_named(self) -> Iterator[None]:
        """Turn what goes wrong with the files of a run into one line, and leave nothing half written.

        Raises:
            CheckpointError: see above.
        """
        try:
            yield
        except Exception as error:
            newest = self.newest()
            self._clear_work()
            named = file_error(self.folder, error, newest)
            if named is None:
                raise
            raise named from error

    def _finish(self, beside: Path, step: int, note_best: Callable[[], int | None]) -> None:
        try:
            write_manifest(beside, step=step, world_size=self.world_size)
            put_in_place(beside, self.folder / beside.name)
            best = note_best()
            found = [path for number, path in checkpoints(self.folder) if number <= step]
            for path in checkpoints_to_delete(found, self.limit, self.folder / f"{CHECKPOINT_PREFIX}{best}"):
                delete_folder(path, self.work_folder)
        except BaseException as error:
            self.error = error

    def newest(self) -> Path | None:
        """Return the newest complete checkpoint, once the one that is being finished has come to its end."""
        if self.thread is not None:
            self.thread.join()
        return newest_checkpoint(self.folder)

    def check(self) -> None:
        """Raise what has gone wrong beside training, without waiting.

        Raises:
            CheckpointError: a checkpoint could not be finished.
        """
        if self.error is not None:
            error, self.error = self.error, None
            with self.errors_named():
                raise error

    def wait(self) -> None:
        """Wait until the last checkpoint is in its place.

        Raises:
            CheckpointError: it could not be finished.
        """
        if self.thread is not None:
            self.thread.join()
            self.thread = None
        self.check()

    def close(self) -> None:
        """Wait, and leave no working folder; errors are only logged: there is another one already."""
        try:
            self.wait()
        except CheckpointError as error:
            log.warning("%s", error)
        self._clear_work()

    def _clear_work(self) -> None:
        if rank() == 0:  # the others write nothing, and must not delete what it writes
            clear_work(self.folder)


def file_error(folder: Path, error: BaseException, newest: Path | None) -> CheckpointError | None:
    """Return what to say of an error while the files of a run are written; None where it is none of files."""
    kept = f"The last complete checkpoint is {newest.name}" if newest else "There is no complete checkpoint yet"
    if is_disk_full(error):
        free = shutil.disk_usage(folder).free / 2**20
        mend = "Free some space, or set train.save_total_limit; then --resume."
        return CheckpointError(folder, f"no space left to write to ({free:.1f} MiB are free). {kept}. {mend}")
    if isinstance(error, OSError):
        what = f"a file of the run cannot be written: {error.strerror or error}"
        return CheckpointError(folder, f"{what}. {kept}. Mend that; then --resume.")
    return None


def checkpoints_to_delete(folders: list[Path], limit: int | None, best: Path) -> list[Path]:
    """Return which checkpoints go: the oldest, but neither the newest nor the best, until `limit` are left.

    Worked example: of steps 10, 20, 30 and 40 with a limit of 2 and the best at 20, 10 and 30 go.

    Args:
        folders: all of the run, the oldest first.
        limit: how many stay; with 1, two stay where the best is not the newest. None: all.
        best: one that always stays, where it is among them.
    """
    if limit is None:
        return []
    others = [folder for folder in folders[:-1] if folder != best]
    return others[: max(0, len(folders) - limit)]


def put_in_place(beside: Path, target: Path) -> None:
    """Rename a finished folder to its name; one of that name, which was not whole, goes first."""
    if target.exists():
        delete_folder(target, beside.parent)
    os.replace(beside, target)
    sync_folder(target.parent)


def delete_folder(path: Path, work_folder: Path) -> None:
    """Delete a folder so that it is whole or gone at any moment: it is moved away first."""
    doomed = work_folder / f"deleted-{path.name}"
    work_folder.mkdir(exist_ok=True)
    shutil.rmtree(doomed, ignore_errors=True)
    os.replace(path, doomed)
    shutil.rmtree(doomed)


def clear_work(folder: Path) -> None:
    """Delete what an interrupted run was writing or deleting."""
    shutil.rmtree(folder / WORK_FOLDER, ignore_errors=True)
