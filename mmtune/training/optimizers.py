"""Optimizers by name: short words, their own arguments, and the parameter groups of low-rank ones."""

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import SchedulerType, Trainer, TrainingArguments, get_scheduler
from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION
from transformers.training_args import OptimizerNames

from mmtune.errors import ConfigError
from mmtune.lookup import lookup, nearest

SHORT_WORDS = {
    "adamw": "adamw_torch_fused",
    "adamw_hf": "adamw_torch",
    "adamw_32bit": "adamw_torch_fused",
    "paged_adamw": "paged_adamw_32bit",
    "lion": "lion_32bit",
    "paged_lion": "paged_lion_32bit",
    "galore": "galore_adamw",
    "apollo": "apollo_adamw",
}
"""Words that transformers lacks -> its own."""

NOT_OFFERED = ("layerwise", "lomo", "xla", "npu", "galore_adamw_8bit")
"""Parts of names of optimizers that step inside the backward pass, or run on devices that mmtune does not.

galore-torch 1.0 hands the arguments of `galore_adamw_8bit` over by their places, which bitsandbytes has changed since:
a clipping of 100 percent becomes a limit on the update.
"""

OPTIMIZERS = {
    name.value: name.value for name in OptimizerNames if not any(part in name.value for part in NOT_OFFERED)
} | SHORT_WORDS

_GALORE = ("rank", "update_proj_gap", "scale", "proj_type")
OPTIM_ARGS: dict[str, tuple[str, ...]] = {
    "adamw_torch": (),
    "adafactor": (),
    "adamw_8bit": (),
    "adamw_bnb": (),
    "paged_adamw": (),
    "lion": (),
    "paged_lion": (),
    "galore": _GALORE,
    "apollo": (*_GALORE, "proj", "scale_type"),
    "sgd": ("momentum", "dampening", "weight_decay", "nesterov"),
}
"""Beginning of a name -> the keys of `train.optim_args` that it reads; transformers passes over all others in silence.

From transformers' `trainer_optimizer.py`; optimizers that are not here read their keys unchecked.
"""

PACKAGES = {"galore": "galore_torch", "apollo": "apollo_torch"}
GIVEN_BY_THE_RUN = {"optimizer", "num_warmup_steps", "num_training_steps", "last_epoch"}
NEEDS_EVALUATION = ("reduce_lr_on_plateau", "greedy")
SCHEDULES = {name.value: name for name in SchedulerType if name.value not in NEEDS_EVALUATION}


def optimizer_name(word: str) -> str:
    """Return transformers' name of an optimizer.

    Raises:
        ConfigError: there is none of this name; the message holds the nearest one.
    """
    return lookup(OPTIMIZERS, word, "train.optim")


def optim_args_text(name: str, given: Mapping[str, Any] | None) -> str | None:
    """Return `train.optim_args` as transformers reads them: `rank=64, scale=0.25`.

    Raises:
        ConfigError: the optimizer reads no such key.
    """
    known = next((keys for start, keys in OPTIM_ARGS.items() if name.startswith(start)), None)
    for key in given or {}:
        if known is not None and key not in known:
            shown = f"Known: {', '.join(known)}." if known else "It reads none."
            raise ConfigError(f"train.optim_args.{key}", f"{name} reads no such key.{nearest(key, known)} {shown}")
    return ", ".join(f"{key}={value}" for key, value in given.items()) if given else None


def require_optimizer(args: TrainingArguments) -> None:
    """Check that the packages of an optimizer are installed, before a model loads.

    Raises:
        ConfigError: they are not.
    """
    name = OptimizerNames(args.optim).value
    for start, package in PACKAGES.items():
        if name.startswith(start):
            try:
                importlib.import_module(package)
            except ImportError:
                message = f"{name} needs {package}. Run: pip install 'mmtune[{start}]'"
                raise ConfigError("train.optim", message) from None
            return
    _class_and_options(args, None)


def make_optimizer(args: TrainingArguments, model: nn.Module, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Return the optimizer of a run.

    GaLore (Zhao et al. 2024, arXiv:2403.03507) and APOLLO (Zhu et al. 2024, arXiv:2412.05270) keep their states for
    `train.optim_target_modules` in a low rank; these weights get groups of their own, everything else stays in its
    group.

    Args:
        args: of the Trainer.
        model: whose module names are matched.
        groups: parameters with their `lr` and `weight_decay`.

    Raises:
        ConfigError: no trained linear layer matches.
    """
    optimizer_class, options = _class_and_options(args, model)
    if args.optim == OptimizerNames.GALORE_ADAMW:
        options["no_deprecation_warning"] = True  # it is copied from an optimizer that transformers has dropped
    if "params" in options:
        _, chosen = options.pop("params")
        groups = _with_low_rank(groups, chosen, args)
    return optimizer_class(groups, **options)


def _class_and_options(args: TrainingArguments, model: Any) -> tuple[Any, dict[str, Any]]:
    try:
        return Trainer.get_optimizer_cls_and_kwargs(args, model)
    except (ImportError, ValueError) as error:
        raise ConfigError("train.optim", f"{str(error).splitlines()[0][:300].rstrip('.')}.") from None


def _with_low_rank(
    groups: list[dict[str, Any]], chosen: dict[str, Any], args: TrainingArguments
) -> list[dict[str, Any]]:
    """Split each group into what keeps full states and what keeps them in a low rank."""
    settings = {key: value for key, value in chosen.items() if key != "params"}
    # GaLore's AdamW is given no betas by transformers, and its own default is not ours.
    betas = {} if args.optim == OptimizerNames.GALORE_ADAFACTOR else {"betas": (args.adam_beta1, args.adam_beta2)}
    targets = {id(parameter) for parameter in chosen["params"]}
    split = []
    for group in groups:
        for is_low_rank in (False, True):
            members = [value for value in group["params"] if (id(value) in targets) == is_low_rank]
            if members:
                split.append(group | betas | {"params": members} | (settings if is_low_rank else {}))
    if not any("rank" in group for group in split):
        names = f"'{args.optim_target_modules}'"
        message = f"no linear layer that trains has {names} in its name. These optimizers are for `tune: full`."
        raise ConfigError("train.optim_target_modules", message)
    return split


def require_schedule(word: str, options: dict[str, Any] | None) -> None:
    """Check the name and the keys of a schedule by making one.

    Raises:
        ConfigError: there is no such schedule, key or value.
    """
    name = lookup(SCHEDULES, word, "train.lr_scheduler_type")
    place = "train.lr_scheduler_kwargs"
    make: Any = TYPE_TO_SCHEDULER_FUNCTION[name]
    known = inspect.signature(make).parameters.keys() - GIVEN_BY_THE_RUN
    for key in options or {}:
        if key not in known:
            shown = f"Known: {', '.join(sorted(known))}." if known else "It takes none."
            raise ConfigError(f"{place}.{key}", f"{word} has no such key.{nearest(key, known)} {shown}")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    try:
        get_scheduler(name, optimizer, 1, 10, options)
    except (TypeError, ValueError) as error:
        reason = str(error).splitlines()[0][:200].rstrip(".")
        raise ConfigError(place, f"{word} refuses this: {reason}. Mend its keys.") from None
