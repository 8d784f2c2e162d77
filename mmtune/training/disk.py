"""Room on the disk for a run's checkpoints, tried before its first step rather than found out at hour nine."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

from mmtune.errors import CheckpointError
from mmtune.run_folder import checkpoints
from mmtune.sizes import GIB, gib
from mmtune.training.checkpoints import CheckpointWriter

log = logging.getLogger(__name__)


def try_to_save(writer: CheckpointWriter, write_run: Callable[[Path], None], state_bytes: float, num_saves: int) -> int:
    """Write a checkpoint for a test, delete it, and hold that there is room for all that are to come.

    Args:
        writer: of the run.
        write_run: writes all files of a run but those of its state.
        state_bytes: of the optimizer's state, which does not exist yet.
        num_saves: checkpoints that are still to come.

    Returns:
        Bytes of a checkpoint.

    Raises:
        CheckpointError: it cannot be written, or there is too little room.
    """
    trial = writer.work_folder / "trial"
    with writer.errors_named():
        write_run(trial)
        run_bytes = folder_bytes(trial)
        shutil.rmtree(writer.work_folder)
    size = int(run_bytes + state_bytes)
    there = len(checkpoints(writer.folder))
    at_a_time = there + num_saves if writer.limit is None else min(there + num_saves, writer.limit + 1)
    needed, free = max(at_a_time - there, 0) * size + run_bytes, shutil.disk_usage(writer.folder).free
    log.info("a checkpoint takes about %s; %s are free on its disk", _size(size), _size(free))
    if needed > free:
        kept = "all are kept" if writer.limit is None else f"train.save_total_limit={writer.limit}"
        what = f"no room for its checkpoints: about {_size(needed)} are needed ({num_saves} of {_size(size)}, {kept})"
        mend = (
            "Free some space, lower train.save_total_limit, raise train.save_steps, or take another train.output_dir."
        )
        raise CheckpointError(writer.folder, f"{what}, {_size(free)} are free. {mend}")
    return size


def folder_bytes(folder: Path) -> int:
    """Add up the sizes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _size(number: float) -> str:
    return gib(number) if number >= GIB / 10 else f"{number / 2**20:.1f} MiB"
