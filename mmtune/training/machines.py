"""What the machines of a run must see alike: its folder, and the checkpoint that it goes on from.

Rank 0 alone writes the files of a run. With one machine there is nothing to compare.
"""

import logging
import socket
from contextlib import suppress
from pathlib import Path

from mmtune.errors import CheckpointError
from mmtune.hashing import file_hash
from mmtune.processes import is_on_several_machines, rank
from mmtune.run_folder import MANIFEST_FILE, is_complete, require_complete
from mmtune.training.ranks import agreed, gathered
from mmtune.training.run_lock import LOCK_FILE

log = logging.getLogger(__name__)


def log_unshared(folder: Path) -> None:
    """Say which machines do not see the folder that rank 0 writes to: they cannot resume from it.

    Args:
        folder: of the run, locked by rank 0: the lock's text is of this run alone.
    """
    if not is_on_several_machines():
        return
    text = ""
    with suppress(OSError):
        text = (folder / LOCK_FILE).read_text(encoding="utf-8")
    host = socket.gethostname()
    (writer, written), *others = gathered((host, text))
    blind = sorted({name for name, seen in others if seen != written})
    if written and blind and rank() == 0:
        log.warning(
            "%s is on %s alone, %s cannot see it: the run will be complete there, but --resume needs its checkpoint on "
            "every machine. Put train.output_dir on a disk that all share, or copy the checkpoint before a resume.",
            folder, writer, ", ".join(blind),
        )  # fmt: skip


def require_same_checkpoint(checkpoint: Path) -> None:
    """Hold that every machine has the checkpoint that rank 0 continues from.

    Raises:
        CheckpointError: this machine does not have it, or another one of its name.
        EndedElsewhere: another machine does not, and says so.
    """
    if not is_on_several_machines():
        return
    own = file_hash(checkpoint / MANIFEST_FILE) if is_complete(checkpoint) else None
    host = socket.gethostname()
    writer, wanted = gathered((host, own))[0]
    mend = "Put train.output_dir on a disk that all machines share, or copy the checkpoint to each."
    with agreed():
        if own is None:
            raise CheckpointError(checkpoint, f"is not on {host}; {writer} continues from it. {mend}")
        if own != wanted:
            raise CheckpointError(checkpoint, f"is another one on {host} than on {writer}. {mend}")
        require_complete(checkpoint)
