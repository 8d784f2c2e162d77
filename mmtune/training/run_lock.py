"""One run in a folder at a time: two would write over each other's checkpoints."""

import logging
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from mmtune.errors import CheckpointError
from mmtune.run_folder import MANIFEST_FILE
from mmtune.training.callbacks import LOG_FILE

log = logging.getLogger(__name__)
LOCK_FILE = ".lock"
SECONDS_OF_LIFE = 300.0
"""After which a log that does not grow is that of a run that ended: steps and evaluations take less."""


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


def is_running(folder: Path) -> bool:
    """Whether a run writes in a folder now, as far as this machine can see; the lock itself is left alone.

    Of a run on another machine, or without a lock, a log that grew in the last `SECONDS_OF_LIFE` tells.
    """
    if (folder / MANIFEST_FILE).is_file():
        return False
    owner = re.fullmatch(r"process (\d+) on (.+)", _owner(folder / LOCK_FILE))
    if owner is not None and owner[2] == socket.gethostname():
        return psutil.pid_exists(int(owner[1]))
    try:
        return time.time() - (folder / LOG_FILE).stat().st_mtime < SECONDS_OF_LIFE
    except OSError:
        return False


def _owner(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip() or "process unknown"
    except OSError:
        return "process unknown"
