"""Reads PyTorch files of other tools without running what they pickle.

`torch.load(weights_only=True)` builds tensors and plain containers alone. XTuner's files also hold mmengine's log of
the training, so each name of that log stands for an empty object here; any other name refuses the file.
"""

import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from mmtune.errors import CheckpointError


class Inert:
    """What takes the place of a bookkeeping object: takes anything, keeps nothing, does nothing."""

    def __init__(self, *args: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        pass


BOOKKEEPING = (
    "mmengine.logging.history_buffer.HistoryBuffer",
    "builtins.getattr",  # how a HistoryBuffer names its methods: getattr(HistoryBuffer, "mean")
    "numpy.ndarray",
    "numpy.dtype",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",  # where numpy 2 has them
    "numpy._core.multiarray.scalar",
    "numpy._core.numeric._frombuffer",
    "numpy.core.numeric._frombuffer",
)
"""The names that are allowed besides torch's own. Each is read as an `Inert` of that name: none of them is called."""


def _inert(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return type(name, (Inert,), {"__module__": module})


INERT_CLASSES = [_inert(path) for path in BOOKKEEPING]


def read_pickle(path: Path) -> Any:
    """Read a `.pth`, `.pt` or `.bin` file; tensors stay on the disk until they are used.

    Raises:
        CheckpointError: the file is cut off or no PyTorch file, or it pickles an object that is none of `BOOKKEEPING`.
    """
    if not path.is_file():
        raise CheckpointError(path, f"no such file (resolved to {path.resolve()}). Mend the path.")
    try:
        with torch.serialization.safe_globals(INERT_CLASSES):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # torch raises RuntimeError, EOFError, UnpicklingError and others
        raise _refusal(path, error) from None


def _refusal(path: Path, error: Exception) -> CheckpointError:
    named = re.search(r"GLOBAL (\S+)", str(error))
    if named:
        message = f"pickles {named[1]}, which is neither a tensor nor a log of the training: the file was not read."
        return CheckpointError(path, f"{message} Loading it could run code. Take a file that you trust.")
    text = str(error).rpartition("WeightsUnpickler error:")[2].strip()  # what stands before it is advice of torch
    reason = text.splitlines()[0][:160].rstrip(".") if text else type(error).__name__
    size = path.stat().st_size
    return CheckpointError(path, f"broken, cut off or no PyTorch file ({size} bytes): {reason}. Take another file.")
