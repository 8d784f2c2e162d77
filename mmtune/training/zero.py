"""DeepSpeed's settings of a run, from a shipped name or a file, and where it or FSDP cannot work.

What they write into checkpoints and how weights are gathered is in `sharding.py`.
"""

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from mmtune.errors import ConfigError
from mmtune.processes import num_processes
from mmtune.schema import TrainConfig
from mmtune.shipped import shipped_folder
from mmtune.training.optimizers import optimizer_name
from mmtune.training.spread import Spread, spread_of

KEY = "train.deepspeed"
ACCELERATE_VARIABLE = "ACCELERATE_USE_DEEPSPEED"
"""By it accelerate remembers DeepSpeed, also for later runs of a process that are without it."""

LAUNCH = "torchrun --nproc_per_node 2 -m mmtune finetune CONFIG"
ELEMENTWISE = ("adamw_torch", "adamw_torch_fused", "sgd", "adagrad", "rmsprop", "lion_32bit")
"""Optimizers that treat each number by itself: they do the same on a device's share of the flattened weights."""

ONES_OWN = {"optimizer": "train.optim", "scheduler": "train.lr_scheduler_type"}
"""Sections of DeepSpeed's settings that a run has keys for -> these."""


def zero_settings(config: TrainConfig, dtype: torch.dtype) -> dict[str, Any] | None:
    """Return DeepSpeed's settings of a run, its "auto" values not filled in yet; None where it is not asked for.

    Args:
        config: the section `train`.
        dtype: that the language model computes in.

    Raises:
        ConfigError: DeepSpeed is missing, cannot run like this, or its file is wrong.
    """
    if config.deepspeed is None:
        os.environ.pop(ACCELERATE_VARIABLE, None)
        return None
    _require_deepspeed(config.deepspeed)
    settings = read_settings(config.deepspeed)
    for section, key in ONES_OWN.items():
        if section in settings:
            raise ConfigError(config.deepspeed, f"has a section '{section}', which {key} says. Leave it out.")
    for name, kind in (("fp16", torch.float16), ("bf16", torch.bfloat16)):
        wanted = settings.get(name, {}).get("enabled", "auto")
        if wanted not in ("auto", dtype == kind):
            message = f"'{name}.enabled' is {json.dumps(wanted)}, but this run computes in {str(dtype)[6:]}"
            raise ConfigError(config.deepspeed, f'{message} (model.llm.dtype). Set it to "auto".')
    if settings["zero_optimization"].get("offload_optimizer") and settings.get("zero_force_ds_cpu_optimizer", True):
        _require_no_lock()
    return settings


def _require_no_lock() -> None:
    """Say that DeepSpeed would wait in silence for a build of its optimizer, which may have been killed."""
    from torch.utils.cpp_extension import get_default_build_root

    folder = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root())
    for lock in sorted(folder.rglob("lock")):
        mend = "Wait for the program that compiles there; if there is none, a build was killed: delete the folder."
        raise ConfigError(KEY, f"{lock} locks what DeepSpeed's optimizer for CPUs is built in. {mend}")


def _require_deepspeed(word: str) -> None:
    if importlib.util.find_spec("deepspeed") is None:
        raise ConfigError(KEY, f"{word} needs deepspeed. Run: pip install 'mmtune[deepspeed]'")
    if "LOCAL_RANK" not in os.environ:
        raise ConfigError(KEY, f"{word} needs processes that a launcher has started, also where it is one: {LAUNCH}")


def spread_of_run(config: TrainConfig, num_devices: int, hidden_size: int) -> Spread:
    """Return how a run is spread over devices; what FSDP splits is counted whole.

    Args:
        config: the section `train`.
        num_devices: that train together.
        hidden_size: of the language model.

    Raises:
        ConfigError: there is no such file of DeepSpeed's settings, or it is wrong.
    """
    settings = None if config.deepspeed is None else read_settings(config.deepspeed)
    return spread_of(num_devices, settings, hidden_size)


def read_settings(word: str) -> dict[str, Any]:
    """Return DeepSpeed's settings by what `train.deepspeed` says, "auto" values as they are.

    Raises:
        ConfigError: there is no such file, or it is wrong.
    """
    path = Path(word) if word.endswith(".json") else shipped_folder() / "deepspeed" / f"{word}.json"
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        message = f"no such file (resolved to {path.resolve()}). `mmtune configs list -p deepspeed` names shipped ones."
        raise ConfigError(KEY, f"{path}: {message}") from None
    except (OSError, ValueError) as error:
        raise ConfigError(KEY, f"{path}: cannot be read as JSON: {error}. Mend the file.") from None
    if not isinstance(settings, dict) or "zero_optimization" not in settings:
        raise ConfigError(KEY, f"{path}: has no section 'zero_optimization'. Copy a shipped one and change it.")
    return settings


def require_splittable(config: TrainConfig, dtype: torch.dtype) -> None:
    """Check that a run can be split over devices, where its config asks for that.

    Args:
        config: the section `train`.
        dtype: that the language model computes in.

    Raises:
        ConfigError: the optimizer needs whole weights, or FSDP has no other process or the wrong dtype.
    """
    key = KEY if config.deepspeed is not None else "train.fsdp"
    if config.deepspeed is None and not config.fsdp:
        return
    if optimizer_name(config.optim) not in ELEMENTWISE:
        reason = "an optimizer gets pieces of weights there, and this one needs whole ones"
        raise ConfigError("train.optim", f"'{config.optim}' does not go with {key}: {reason}. Take adamw_torch_fused.")
    if config.fsdp and num_processes() == 1:
        raise ConfigError(key, f"splits a model over processes, and this is one alone. Start several: {LAUNCH}")
    if config.fsdp and dtype == torch.float16:
        raise ConfigError(key, "does not go with float16, whose gradients are scaled. Take model.llm.dtype: bfloat16.")


def is_zero3(settings: dict[str, Any]) -> bool:
    """Whether weights themselves are split over the devices."""
    return settings["zero_optimization"].get("stage") == 3


def require_filled(config: TrainConfig, arguments: TrainingArguments) -> None:
    """Hold that what DeepSpeed's settings say of a run is what its config says.

    Raises:
        ConfigError: a value differs.
    """
    for mismatch in arguments.hf_deepspeed_config.mismatches:
        said, wanted = mismatch.removeprefix("- ds ").split(" vs hf ")
        message = f'{said.replace("=", " is ")}, but the run has {wanted.replace("=", " ")}. Set it to "auto".'
        raise ConfigError(str(config.deepspeed), message)


def meet_on_cpu() -> None:
    """Let processes on CPUs talk through gloo alone, called before they meet.

    DeepSpeed has an all-reduce in shared memory of its own, which takes minutes to build with a C++ compiler; a build
    that was killed leaves a lock on which later ones wait in silence.
    """
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__ = {}  # else it finds out by trying compilers which operations could be built
