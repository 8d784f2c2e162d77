"""One run in a folder at a time: two would write over each other's checkpoints."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from mmtune.errors import CheckpointError

log = logging.getLogger(__name__)
LOCK_FILE = ".lock"


@contextmanager
def run_lock(folder: Path, instead: str = "train.output_dir") -> Iterator[None]:
    """Hold a run folder. The system lets go of it when the process ends, however that happens.

    Args:
        folder: that is there.
        instead: what to take another of where it is held.

    Raises:
        CheckpointError: another run holds it.
    """
    path = folder / LOCK_FILE
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        message = f"another run writes here ({_owner(path)}). Wait for its end, or take another {instead}."
        raise CheckpointError(folder, message) from None
    except (OSError, NotImplementedError) as error:
        log.warning("%s: its file system has no locks (%s): take care that one run alone writes here", folder, error)
        yield
        return
    try:
        with suppress(OSError):  # a full disk is said where something must be written
            path.write_text(f"process {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")
        yield
    finally:
        lock.release()


def _owner(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip() or "process unknown"
    except OSError:
        return "process unknown"
