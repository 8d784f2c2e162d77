"""Memory, cores, disks, and the settings in the environment that change what mmtune does."""

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mmtune.cache import cache_folder
from mmtune.doctor.findings import Finding
from mmtune.sizes import GIB, gib

LITTLE_DISK = 10 * GIB
LITTLE_SHARED = GIB // 2
SHARED = Path("/dev/shm")
CONTAINER_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))

SETTINGS = {
    "HF_HUB_OFFLINE": "1: no model is fetched",
    "TRANSFORMERS_OFFLINE": "1: no model is fetched",
    "HF_ENDPOINT": "models of the hub are fetched from here",
    "HF_HOME": "the hub's client keeps its files here",
    "HF_HUB_CACHE": "the hub's client keeps models here",
    "MMTUNE_CACHE": "prepared data and converted models are kept here",
    "MMTUNE_LOG_LEVEL": "the least that is shown",
    "TORCH_EXTENSIONS_DIR": "kernels that are compiled here are kept here",
    "CUDA_VISIBLE_DEVICES": "GPUs that programs see",
    "OMP_NUM_THREADS": "threads on the CPU",
    "PYTORCH_CUDA_ALLOC_CONF": "how torch takes memory of the GPU",
    "PYTHONPATH": "modules are looked for here first",
    "WORLD_SIZE": "a launcher set it: mmtune takes itself for one of several processes",
    "RANK": "a launcher set it",
    "HTTPS_PROXY": "downloads go through it",
    "https_proxy": "downloads go through it",
}
SECRETS = {"HF_TOKEN": "a token for the hub", "WANDB_API_KEY": "a key for Weights & Biases"}


def about_memory() -> Iterator[Finding]:
    """Yield main memory, cores, and the shared memory that data workers pass batches through."""
    try:
        import psutil
    except ImportError:
        yield Finding("machine", "memory", "note", "not known without psutil", "pip install psutil")
        return
    memory = psutil.virtual_memory()
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    text = f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB free, {cores} cores"
    limit = _limit_of_container()
    if limit is not None and limit < memory.total:
        text = f"{text}; this container may take {limit / GIB:.1f} GiB, and what is more is killed"
        yield Finding("machine", "memory", "note", text, "Plan with that: mmtune plan CONFIG train.device=cpu")
    else:
        yield Finding("machine", "memory", "ok", text)
    if SHARED.is_dir() and (size := shutil.disk_usage(SHARED).total) < LITTLE_SHARED:
        text = f"{SHARED} has {size / 2**20:.0f} MiB: data workers pass images through it"
        yield Finding("machine", "shared memory", "note", text, "docker run --shm-size 8g, or workers: 0")


def _limit_of_container() -> int | None:
    for path in CONTAINER_LIMITS:
        try:
            text = path.read_text(encoding="utf-8").strip()
        except OSError:
            continue
        return int(text) if text.isdigit() else None
    return None


def about_disks() -> Iterator[Finding]:
    """Yield the room in the folders that mmtune writes to, and whether it may."""
    hub = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface") / "hub"
    folders = {
        "working folder": Path.cwd(),
        "cache of mmtune": cache_folder(),
        "cache of the hub": Path(os.environ.get("HF_HUB_CACHE") or hub),
        "temporary files": Path(tempfile.gettempdir()),
    }
    for name, folder in folders.items():
        there = next(path for path in (folder, *folder.parents) if path.is_dir())
        free = shutil.disk_usage(there).free
        text = f"{folder}, {gib(free)} free"
        if not os.access(there, os.W_OK):
            yield Finding("machine", name, "note", f"{text}, and nothing can be written there", _elsewhere(name))
        elif free < LITTLE_DISK and name != "temporary files":
            yield Finding("machine", name, "note", f"{text}: little for models and checkpoints", _elsewhere(name))
        else:
            yield Finding("machine", name, "ok", text)


def _elsewhere(name: str) -> str:
    variables = {"cache of mmtune": "MMTUNE_CACHE", "cache of the hub": "HF_HOME", "temporary files": "TMPDIR"}
    return f"export {variables[name]}=FOLDER" if name in variables else "Work in another folder."


def about_settings() -> Iterator[Finding]:
    """Yield what the environment sets; secrets are not shown, nor names and passwords in addresses."""
    for variable, meaning in SETTINGS.items():
        if value := os.environ.get(variable):
            shown = re.sub(r"//[^/@]*@", "//***@", value)
            yield Finding("settings", variable, "note", f"{shown} ({meaning})")
    for variable, meaning in SECRETS.items():
        if os.environ.get(variable):
            yield Finding("settings", variable, "note", f"set ({meaning})")
