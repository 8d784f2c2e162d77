"""The processes that open images: how many there are, and which signals they heed."""

import signal
from typing import Any

from mmtune.processes import num_processes
from mmtune.schema import TrainConfig


def worker_options(train: TrainConfig) -> dict[str, Any]:
    """Return what a `DataLoader` is told of its workers.

    Args:
        train: of the run.
    """
    workers = train.dataloader_num_workers
    return {
        "num_workers": workers,
        "prefetch_factor": train.dataloader_prefetch_factor if workers else None,
        "worker_init_fn": leave_signals_to_the_run if workers else None,
    }


def leave_signals_to_the_run(worker: int = 0) -> None:
    """Let a data worker pass over Ctrl-C, which a terminal sends it too, and end on SIGTERM, which its loader sends.

    torchrun sends SIGTERM to the workers too, which are needed until the step is finished: under it they end with
    their loader or with its process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL if num_processes() == 1 else signal.SIG_IGN)
