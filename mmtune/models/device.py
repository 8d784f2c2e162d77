"""What differs between devices: which there are, how much memory is free, waiting. CUDA, Apple's MPS, the CPU."""

from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch

from mmtune.errors import ConfigError
from mmtune.processes import local_rank, num_local_processes, num_processes

PLACE = "train.device"
MPS = "mps"


def choose_device(name: str = "auto") -> torch.device:
    """Return the device of a run.

    Of several processes that torchrun starts on a machine each gets the GPU of its number there.

    Args:
        name: `auto` is a CUDA GPU where there is one, else the CPU; `mps` is the GPU of a Mac, taken only when it is
            asked for.

    Raises:
        ConfigError: `mps` is asked for, and torch has none here, or there are more processes than GPUs.
    """
    if name == MPS:
        if not torch.backends.mps.is_available():
            reason = "macOS is too old" if torch.backends.mps.is_built() else "this build of torch has none"
            raise ConfigError(PLACE, f"mps is the GPU of a Mac, and there is none here ({reason}). Set it to auto.")
        return torch.device(MPS)
    if name != "auto" or not torch.cuda.is_available():
        return torch.device("cpu")
    if num_processes() == 1:
        return torch.device("cuda")
    num_here, num_gpus = num_local_processes(), torch.cuda.device_count()
    if num_here > num_gpus:
        message = f"torchrun started {num_here} processes here for {num_gpus} GPUs. Start --nproc_per_node {num_gpus}."
        raise ConfigError(PLACE, message)
    return torch.device("cuda", local_rank())


def device_to_answer(name: str) -> torch.device:
    """Return where a trained model answers: on the GPU of a Mac where it was trained on one and there is one here.

    Args:
        name: `train.device` of its run.
    """
    return choose_device(MPS if name == MPS and torch.backends.mps.is_available() else "auto")


def synchronize(device: torch.device) -> None:
    """Wait until a device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == MPS:
        torch.mps.synchronize()


def free_memory(device: torch.device) -> int:
    """Return the bytes that a process may still take: of its GPU, with what torch holds unused, else of the machine.

    A Mac has one memory; of it, the GPU may take what the system recommends and no program has taken.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    available = psutil.virtual_memory().available // num_local_processes()
    if device.type == MPS:
        return min(available, torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
    return available


@contextmanager
def random_state_kept(device: torch.device) -> Iterator[None]:
    """Leave torch's random generators, that of the CPU and that of a device, as they were."""
    state = torch.mps.get_rng_state() if device.type == MPS else None
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield
    if state is not None:
        torch.mps.set_rng_state(state)


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """Let convolutions of float32 compute in float32: on CUDA torch otherwise rounds their operands to TF32."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
