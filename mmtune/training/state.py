"""Optimizer, scheduler and random states as safetensors and JSON: what a resume needs beside the weights. No pickle."""

import importlib
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.scheduler import AcceleratedScheduler
from torch.optim.lr_scheduler import LambdaLR

from mmtune.models.weights import read_tensors, write_tensors
from mmtune.run_folder import read_json, write_json

STATE_FOLDER = "state"
LaidOut = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
RandomState = tuple[dict[str, torch.Tensor], dict[str, Any]]
PROJECTIONS = {
    "galore": ("galore_torch.galore_projector", "GaLoreProjector"),
    "apollo random": ("apollo_torch.random_projector", "GradientProjector"),
    "apollo svd": ("apollo_torch.svd_projector", "GaLoreProjector"),
}
"""Objects that low-rank optimizers keep beside tensors -> their module and class. No other class is ever made."""


def save_optimizer(folder: Path, state: dict[str, Any], scheduler: Any) -> None:
    """Write the tensors of an optimizer's `state_dict` to `state/optimizer.safetensors`, all else to a JSON beside."""
    folder = folder / STATE_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, torch.Tensor] = {}
    slots = _without_tensors(state["state"], "", tensors)
    write_tensors(folder / "optimizer.safetensors", tensors)
    facts = {"param_groups": state["param_groups"], "slots": slots, "scheduler": scheduler.state_dict()}
    write_json(folder / "optimizer.json", facts)


def load_optimizer(folder: Path, optimizer: Any, scheduler: Any, laid_out_as: LaidOut | None = None) -> None:
    """Read what `save_optimizer` wrote into an optimizer over the same parameters and its scheduler.

    Args:
        folder: of the checkpoint.
        optimizer: new.
        scheduler: new.
        laid_out_as: lays a tensor out as the parameter that it belongs to; None leaves that to the optimizer.
    """
    folder = folder / STATE_FOLDER
    facts = read_json(folder / "optimizer.json")
    slots = _with_tensors(facts["slots"], read_tensors(folder / "optimizer.safetensors"))
    state = {int(index): values for index, values in slots.items()}
    if laid_out_as is not None:
        parameters = [value for group in optimizer.param_groups for value in group["params"]]
        for index, values in state.items():
            tensors = {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}
            values |= {name: laid_out_as(value, parameters[index]) for name, value in tensors.items()}
    optimizer.load_state_dict({"state": state, "param_groups": facts["param_groups"]})
    _move_projections(optimizer)
    scheduler.load_state_dict(facts["scheduler"])
    _follow_schedule(optimizer, scheduler)


def save_scheduler(folder: Path, scheduler: Any) -> None:
    """Write the state of a scheduler alone, where an engine keeps that of the optimizer."""
    (folder / STATE_FOLDER).mkdir(parents=True, exist_ok=True)
    write_json(folder / STATE_FOLDER / "scheduler.json", scheduler.state_dict())


def load_scheduler(folder: Path, optimizer: Any, scheduler: Any) -> None:
    """Read what `save_scheduler` wrote."""
    scheduler.load_state_dict(read_json(folder / STATE_FOLDER / "scheduler.json"))
    _follow_schedule(optimizer, scheduler)


def _follow_schedule(optimizer: Any, scheduler: Any) -> None:
    """Set the rates of the next step as the schedule has them now: a run may be longer than when it was saved."""
    scheduler = scheduler.scheduler if isinstance(scheduler, AcceleratedScheduler) else scheduler
    if isinstance(scheduler, LambdaLR):
        bases = zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
        rates = [base * share(scheduler.last_epoch) for base, share in bases]
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        scheduler._last_lr = rates  # what `get_last_lr` returns


def save_values(folder: Path, name: str, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
    """Write tensors and plain values to `state/NAME.safetensors` and `state/NAME.json`."""
    folder = folder / STATE_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / f"{name}.safetensors", tensors)
    write_json(folder / f"{name}.json", facts)


def load_values(folder: Path, name: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read what `save_values` wrote."""
    folder = folder / STATE_FOLDER
    return read_tensors(folder / f"{name}.safetensors"), read_json(folder / f"{name}.json")


def save_scaler(folder: Path, scaler: Any) -> None:
    """Write the state of a GradScaler, numbers alone, to `state/scaler.json`."""
    (folder / STATE_FOLDER).mkdir(parents=True, exist_ok=True)
    write_json(folder / STATE_FOLDER / "scaler.json", scaler.state_dict())


def load_scaler(folder: Path, scaler: Any) -> None:
    """Read what `save_scaler` wrote."""
    scaler.load_state_dict(read_json(folder / STATE_FOLDER / "scaler.json"))


def _without_tensors(value: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    """Return nested values with each tensor replaced by `{"tensor": its name}`; the tensors go to `tensors`.

    Files hold tensors row by row. How a tensor lies in memory decides in which order a matrix product adds up, so the
    strides of others, such as what a singular value decomposition returns, are kept for an exact resume.
    8-bit optimizers nest dicts and share one table between many parameters. The projections of low-rank optimizers are
    objects: `{"projection": its kind, "values": its attributes}`.
    """
    if isinstance(value, dict):
        return {str(key): _without_tensors(item, f"{name}/{key}".strip("/"), tensors) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_tensors(item, f"{name}/{number}", tensors) for number, item in enumerate(value)]
    if (kind := _projection_kind(value)) is not None:
        return {"projection": kind, "values": _without_tensors(vars(value), name, tensors)}
    if not isinstance(value, torch.Tensor):
        return value
    tensors[name] = value.clone()
    return {"tensor": name} if value.is_contiguous() else {"tensor": name, "stride": list(value.stride())}


def _with_tensors(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, list):
        return [_with_tensors(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() in ({"tensor"}, {"tensor", "stride"}):
        tensor = tensors[value["tensor"]]
        return _laid_out(tensor, value["stride"], tensor.device) if "stride" in value else tensor
    if value.keys() == {"projection", "values"}:
        module, name = PROJECTIONS[value["projection"]]
        projection = object.__new__(getattr(importlib.import_module(module), name))
        vars(projection).update(_with_tensors(value["values"], tensors))
        return projection
    return {key: _with_tensors(item, tensors) for key, item in value.items()}


def _projection_kind(value: Any) -> str | None:
    place = type(value).__module__, type(value).__qualname__
    return next((kind for kind, known in PROJECTIONS.items() if known == place), None)


def _move_projections(optimizer: Any) -> None:
    """Bring projections to their parameters; torch moves tensors alone."""
    for parameter, slots in optimizer.state.items():
        for value in slots.values():
            if _projection_kind(value) is not None:
                matrix = value.ortho_matrix
                matrices = matrix if isinstance(matrix, list) else [matrix]
                moved = [_laid_out(item, item.stride(), parameter.device) for item in matrices]
                value.ortho_matrix = moved if isinstance(matrix, list) else moved[0]


def _laid_out(tensor: torch.Tensor, stride: Sequence[int], device: torch.device) -> torch.Tensor:
    """Copy a tensor to a device with the given strides."""
    return torch.empty_strided(tensor.shape, stride, dtype=tensor.dtype, device=device).copy_(tensor)


def random_state() -> RandomState:
    """Return the states of Python's, NumPy's and torch's random generators as tensors and plain values."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()
    python = {"version": version, "gauss": gauss}
    numpy = {"name": name, "position": position, "has_gauss": has_gauss, "cached": cached}
    tensors = {
        "python": torch.tensor(words, dtype=torch.int64),
        "numpy": torch.from_numpy(np.asarray(keys).astype(np.int64)),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        tensors["cuda"] = torch.cuda.get_rng_state()
    if torch.backends.mps.is_available():
        tensors["mps"] = torch.mps.get_rng_state()
    return tensors, {"python": python, "numpy": numpy}


def save_random_state(folder: Path, state: RandomState, rank: int = 0) -> None:
    """Write what `random_state` returned to `state/random.*`, of another rank than 0 to `state/random-RANK.*`."""
    save_values(folder, _random_file(rank), *state)


def load_random_state(folder: Path, rank: int = 0) -> None:
    """Set the random generators to what `save_random_state` wrote for a rank."""
    tensors, facts = load_values(folder, _random_file(rank))
    python, numpy = facts["python"], facts["numpy"]
    random.setstate((python["version"], tuple(tensors["python"].tolist()), python["gauss"]))
    keys = tensors["numpy"].numpy().astype(np.uint32)
    np.random.set_state((numpy["name"], keys, numpy["position"], numpy["has_gauss"], numpy["cached"]))
    torch.set_rng_state(tensors["torch"])
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"])
    if "mps" in tensors and torch.backends.mps.is_available():
        torch.mps.set_rng_state(tensors["mps"])


def _random_file(rank: int) -> str:
    return f"random-{rank}" if rank else "random"
