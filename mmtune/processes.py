"""Which of the processes of a run this is, as torchrun tells each of them; without torchrun there is one.

What they do together stands in `training/ranks.py`.
"""

import json
import os
import socket
import time
from contextlib import suppress
from pathlib import Path

ERROR_FILE_VARIABLE = "TORCHELASTIC_ERROR_FILE"


def rank() -> int:
    """Return the number of this process among all of the run, from 0."""
    return _number("RANK", 0)


def local_rank() -> int:
    """Return the number of this process among those of its machine, from 0."""
    return _number("LOCAL_RANK", 0)


def num_processes() -> int:
    """Return how many processes train together."""
    return _number("WORLD_SIZE", 1)


def num_local_processes() -> int:
    """Return how many of them are on this machine."""
    return _number("LOCAL_WORLD_SIZE", 1)


def is_on_several_machines() -> bool:
    """Whether the processes are on more than one machine."""
    return num_processes() > num_local_processes()


def mark() -> str:
    """Return what stands before a line of another rank than 0."""
    where = f" on {socket.gethostname()}" if is_on_several_machines() else ""
    return f"[rank {rank()}{where}] " if rank() else ""


def tell_launcher(text: str) -> None:
    """Let torchrun repeat a message in the report that it ends with; nothing without it."""
    path = os.environ.get(ERROR_FILE_VARIABLE)
    if path:
        extra = {"py_callstack": text, "timestamp": str(int(time.time()))}
        with suppress(OSError):  # the message has been printed already
            Path(path).write_text(json.dumps({"message": {"message": text, "extraInfo": extra}}), encoding="utf-8")


def _number(variable: str, default: int) -> int:
    text = os.environ.get(variable, "")
    return int(text) if text.isdigit() else default
