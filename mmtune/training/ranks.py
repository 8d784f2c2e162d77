"""What the processes of a run do together: begin, agree, wait for each other. With one process nothing waits.

All of it goes over a group of its own on the CPU, whose patience is long: rank 0 may prepare data, write a checkpoint
or answer questions for hours while the others wait. Should a process end meanwhile, its connections close and the
others end too; where a machine vanishes the system gives them up after minutes: `keepalive.py`. Gradients and losses go
over the default group, which is the device's.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist

from mmtune.errors import EndedElsewhere
from mmtune.models.device import choose_device
from mmtune.processes import local_rank, num_processes, rank
from mmtune.training.keepalive import keep_asking

log = logging.getLogger(__name__)
PATIENCE = timedelta(days=7)
"""How long a process waits for another that is busy."""
STEP_PATIENCE = timedelta(hours=1)
"""How long it waits for another one's gradients: as long as steps may differ in time."""
LOST = (
    "Connection closed by peer",
    "Connection timed out",
    "Connection reset by peer",
    "Broken pipe",
    "remote process exited",
    "Socket",
)

Result = TypeVar("Result")


def join(device_name: str) -> None:
    """Meet the other processes; once for each process, however many runs it trains.

    Args:
        device_name: `train.device`. Each process of a machine has a GPU of its own.

    Raises:
        ConfigError: a machine has more processes than GPUs.
    """
    if num_processes() == 1 or dist.is_initialized():
        return
    has_gpus = device_name != "cpu" and torch.cuda.is_available()
    dist.init_process_group("nccl" if has_gpus else "gloo", timeout=STEP_PATIENCE)
    with agreed():
        if has_gpus:
            torch.cuda.set_device(choose_device(device_name))
    keep_asking()  # all connections are there by now


def log_processes(device: torch.device) -> None:
    """Say how many processes train, and that they wait for the first one."""
    if num_processes() > 1:
        where = "each on a GPU" if device.type == "cuda" else "on the CPU"
        message = "%d processes train together, %s: the others wait for rank 0 to prepare the data"
        log.info(message, num_processes(), where)


def leave() -> None:
    """Part from the other processes at the end of all runs of this one."""
    if num_processes() > 1 and dist.is_initialized():
        _control.cache_clear()
        dist.destroy_process_group()


@cache
def _control() -> Any:
    return dist.new_group(backend="gloo", timeout=PATIENCE)


def gathered(value: Any) -> list[Any]:
    """Return the values of all ranks in their order; each is something that can be pickled."""
    if num_processes() == 1:
        return [value]
    values: list[Any] = [None] * num_processes()
    dist.all_gather_object(values, value, group=_control())
    return values


def highest(value: float) -> float:
    """Return the highest value that a rank has."""
    if num_processes() == 1:
        return value
    table = torch.tensor(value, dtype=torch.float64)
    dist.all_reduce(table, dist.ReduceOp.MAX, group=_control())
    return float(table)


def summed(values: np.ndarray) -> np.ndarray:
    """Return the sum of the arrays that the ranks have; all get the same, bit for bit."""
    if num_processes() == 1:
        return values
    table = torch.from_numpy(values.copy())
    dist.all_reduce(table, group=_control())
    return table.numpy()


def wait_for_all() -> None:
    """Wait until all ranks are here."""
    if num_processes() > 1:
        dist.barrier(group=_control())


@contextmanager
def agreed() -> Iterator[None]:
    """Let all ranks come through what is inside, or none: an error of one ends all, and one rank alone says it.

    Nothing inside may need another rank, unless all ranks get to it whatever happens.

    Raises:
        EndedElsewhere: another rank says the error.
    """
    if num_processes() == 1:
        yield
        return
    error: Exception | None = None
    try:
        yield
    except Exception as raised:
        error = raised
    texts = gathered(None if error is None else f"{type(error).__name__}: {error}")
    failed = [number for number, text in enumerate(texts) if text is not None]
    if not failed:
        return
    if error is not None and texts.index(texts[rank()]) == rank():
        raise error
    raise EndedElsewhere(f"rank {failed[0]} ended the run: {texts[failed[0]]}") from error


def from_rank_0(work: Callable[[], Result]) -> Result:
    """Let rank 0 do something alone, and return to all what it returned.

    Raises:
        EndedElsewhere: rank 0 failed, and says so.
    """
    result: Any = None
    with agreed():
        if rank() == 0:
            result = work()
    return gathered(result)[0]


def first_on_each_machine(work: Callable[[], Result]) -> Result:
    """Do something on the first rank of each machine, then on its others: they find in the cache what it has made.

    Raises:
        EndedElsewhere: another rank failed, and says so.
    """
    if num_processes() == 1:
        return work()
    results: list[Result] = []
    for is_first in (True, False):
        with agreed():
            if is_first == (local_rank() == 0):
                results.append(work())
    return results[0]


def is_lost(error: BaseException) -> bool:
    """Whether an error says that another process is gone."""
    is_of_them = isinstance(error, dist.DistError) or any(text in str(error) for text in LOST)
    return num_processes() > 1 and isinstance(error, RuntimeError) and is_of_them
