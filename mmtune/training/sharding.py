"""Weights that lie in parts on several devices: whole for as long as files are written, and what an engine writes.

Engines are DeepSpeed's ZeRO and torch's FSDP2. Files of a run hold whole weights, so that nothing but an explicit
resume needs the engine again; what it writes for itself goes into `engine/` of a checkpoint.
"""

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from mmtune.data.collate import empty_batch
from mmtune.models.device import random_state_kept
from mmtune.models.vlm import VisionLanguageModel
from mmtune.models.weights import kept_parameters
from mmtune.processes import rank
from mmtune.training.state import STATE_FOLDER, load_optimizer, load_scheduler, save_optimizer, save_scheduler
from mmtune.training.zero import is_zero3

log = logging.getLogger(__name__)
ENGINE_FOLDER = "engine"
TAG = "zero"
"""What DeepSpeed calls its checkpoint, by a folder of that name in `engine/`."""


@dataclass(frozen=True)
class Engine:
    """What splits a run over devices beyond its batches.

    Attributes:
        splits_weights: every process holds a part of them, and modules fetch the whole when they run.
        gather: brings a parameter together; every process passes its part in.
        save: writes the optimizer's state of a trainer into a checkpoint, from every process.
        load: reads that.
    """

    splits_weights: bool
    gather: Callable[[nn.Parameter], torch.Tensor]
    save: Callable[[Any, Path], None]
    load: Callable[[Any, Path], None]


def engine_of(trainer: Any) -> Engine | None:
    """Return the engine of a `RunTrainer`; None where each process holds all but its batches."""
    settings = trainer.args.deepspeed
    if settings is not None:
        return Engine(is_zero3(settings), gather_zero, save_zero, load_zero)
    if trainer.run_config.train.fsdp:
        return Engine(True, gather_fsdp, save_fsdp, load_fsdp)
    return None


@contextmanager
def whole_weights(model: VisionLanguageModel, gather: Callable[[nn.Parameter], torch.Tensor]) -> Iterator[None]:
    """Let the weights that files hold be whole, on the CPU of the first process; other processes only give their parts.

    One after the other is gathered. They are copies, gone with the end of the context.

    Args:
        model: whose weights an engine has split.
        gather: brings one together.
    """
    copies: dict[int, nn.Parameter] = {}
    kept = {id(value) for value in kept_parameters(model)}
    places = [(m, name, p) for m in model.modules() for name, p in m.named_parameters(recurse=False) if id(p) in kept]
    for _, _, parameter in places:
        if id(parameter) not in copies:
            whole = gather(parameter).detach()
            if rank() == 0:
                copy = whole.to("cpu", copy=True)
                copies[id(parameter)] = nn.Parameter(copy, requires_grad=parameter.requires_grad)
    try:
        for module, name, parameter in places if copies else ():
            module.register_parameter(name, copies[id(parameter)])
        yield
    finally:
        for module, name, parameter in places:
            module.register_parameter(name, parameter)


def copy_weights(checkpoint: Path, folder: Path) -> None:
    """Copy the weights that a checkpoint of this run holds, but for the state of a resume, into the run's folder."""
    for path in checkpoint.rglob("*.safetensors"):
        name = path.relative_to(checkpoint)
        if name.parts[0] not in (STATE_FOLDER, ENGINE_FOLDER):
            shutil.copyfile(path, folder / name)


def gather_zero(parameter: nn.Parameter) -> torch.Tensor:
    """Return the whole of a parameter under DeepSpeed: of one that trains, what its optimizer holds, in float32."""
    import deepspeed

    if parameter.requires_grad:
        return deepspeed.utils.safe_get_full_fp32_param(parameter)
    with deepspeed.zero.GatheredParameters([parameter]):
        return parameter.detach().clone()


def gather_fsdp(parameter: Any) -> torch.Tensor:
    """Return the whole of a parameter under FSDP2, which makes a DTensor of each."""
    return parameter.full_tensor()


def save_zero(trainer: Any, folder: Path) -> None:
    """Write what DeepSpeed keeps of a run, the optimizer above all; every process writes its part."""
    target = folder / ENGINE_FOLDER
    trainer.model_wrapped.save_checkpoint(str(target), tag=TAG, save_latest=False, exclude_frozen_parameters=True)
    if rank() == 0:
        for script in target.glob("*.py"):  # they make weights of this, which lie beside it, whole
            script.unlink()
        save_scheduler(folder, trainer.lr_scheduler)


def load_zero(trainer: Any, folder: Path) -> None:
    """Read what `save_zero` wrote, on as many processes.

    It is a pickle, from a folder whose hashes the resume has compared; it is read by nothing else.
    """
    place = str(folder / ENGINE_FOLDER)
    # Not strict, since frozen weights are not in it. `load_weights` has compared those that train, name by name.
    trainer.model_wrapped.load_checkpoint(place, tag=TAG, load_module_strict=False, load_lr_scheduler_states=False)
    load_scheduler(folder, trainer.optimizer, trainer.lr_scheduler)


def shard(model: VisionLanguageModel) -> None:
    """Split the weights of a model over all processes by FSDP2, block by block; the rest of them together.

    Source: PyTorch FSDP (Zhao et al. 2023, arXiv:2304.11277).
    """
    groups = [*model.blocks, *([] if model.vision is None else [model.vision])]
    for module in groups:
        fully_shard(module)
    root: Any = fully_shard(model, reshard_after_forward=False)
    root._is_fsdp_managed_module = True  # how transformers knows one
    with torch.no_grad(), random_state_kept(model.device):
        # Modules find their root when it first runs: it must not be a part of it that runs first, to answer a question.
        root(**{key: value.to(model.device) for key, value in empty_batch().items() if key != "sample_lengths"})
    root.reshard()
    parts = [cast(DTensor, value).to_local().nbytes for value in model.parameters()]
    whole = sum(value.nbytes for value in model.parameters())
    log.info("FSDP has split the weights: %.4g MiB of %.4g on each process", sum(parts) / 2**20, whole / 2**20)


def save_fsdp(trainer: Any, folder: Path) -> None:
    """Write the optimizer's state as a run without FSDP does: whole tensors, gathered one after the other."""
    state = trainer.optimizer.state_dict()
    whole = {
        index: {name: _on_rank_0(value) for name, value in slots.items()} for index, slots in state["state"].items()
    }
    if rank() == 0:
        save_optimizer(folder, {**state, "state": whole}, trainer.lr_scheduler)


def _on_rank_0(value: Any) -> Any:
    """The whole of a tensor that is split, on the CPU of rank 0 alone."""
    if not isinstance(value, DTensor):
        return value
    whole = value.full_tensor()
    return whole.cpu() if rank() == 0 else None


def load_fsdp(trainer: Any, folder: Path) -> None:
    """Read what `save_fsdp` wrote; each process keeps its part."""
    load_optimizer(folder, trainer.optimizer, trainer.lr_scheduler, split_as)


def split_as(value: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """Split a tensor of a parameter's shape as the parameter is split."""
    if isinstance(parameter, DTensor) and value.shape == parameter.shape:
        return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
    return value
