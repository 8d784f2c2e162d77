"""What differs between devices: which there are, how much memory is free, waiting. CUDA, Apple's MPS, the CPU."""

from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch

from mmtune.errors import ConfigError

PLACE = "train.device"
MPS = "mps"


def choose_device(name: str = "auto") -> torch.device:
    """Return the device of a run.

    Args:
        name: `auto` is a CUDA GPU where there is one, else the CPU; `mps` is the GPU of a Mac, taken only when it is
            asked for.

    Raises:
        ConfigError: `mps` is asked for, and torch has none here.
    """
    if name == MPS:
        if not torch.backends.mps.is_available():
            reason = "macOS is too old" if torch.backends.mps.is_built() else "this build of torch has none"
            raise ConfigError(PLACE, f"mps is the GPU of a Mac, and there is none here ({reason}). Set it to auto.")
        return torch.device(MPS)
    return torch.device("cuda" if name == "auto" and torch.cuda.is_available() else "cpu")


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
    """Return the bytes that a run may still take: of the GPU, with what torch holds unused, else of the machine.

    A Mac has one memory; of it, the GPU may take what the system recommends and no program has taken.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    available = psutil.virtual_memory().available
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
