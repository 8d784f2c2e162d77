"""AdaLoRA's part in the training loop: its penalty, its budget of ranks after each step, its state.

PEFT computes all of it, but in a forward pass that is not used here, and keeps the importance of ranks in no file.
Source: AdaLoRA (Zhang et al. 2023, arXiv:2303.10512).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft import AdaLoraConfig, PeftModel
from torch import nn

from mmtune.errors import ConfigError

PLACEHOLDER_STEPS = 1_000_000_000
"""`total_step` until the steps of the run are known."""

STATISTICS = ("ipt", "exp_avg_ipt", "exp_avg_unc")


def is_adalora(llm: nn.Module) -> bool:
    """Whether a model is wrapped in AdaLoRA."""
    return isinstance(llm, PeftModel) and isinstance(llm.active_peft_config, AdaLoraConfig)


def set_total_steps(llm: nn.Module, num_steps: int, place: str) -> None:
    """Tell AdaLoRA how many optimizer steps the run has, unless its config says so.

    Raises:
        ConfigError: the phases of the budget do not fit into the run.
    """
    if not is_adalora(llm):
        return
    config = _config(llm)
    total = num_steps if config.total_step in (None, PLACEHOLDER_STEPS) else config.total_step
    assert total is not None
    config.total_step = total
    if config.tinit + config.tfinal >= total:
        phases = f"tinit {config.tinit} + tfinal {config.tfinal} leave none of {total} steps"
        raise ConfigError(place, f"AdaLoRA lowers its ranks between tinit and tfinal, but {phases}. Lower them.")


def penalty(llm: nn.Module) -> torch.Tensor | None:
    """Return the weighted orthogonality penalty of the paper's equation 4; None for another method.

    It is the mean over matrices P of ||P P^T - I||, as in PEFT.
    """
    if not is_adalora(llm):
        return None
    weight = _config(llm).orth_reg_weight
    matrices = [(name, value) for name, value in llm.named_parameters() if "lora_A" in name or "lora_B" in name]
    covariances = [value @ value.T if "lora_A" in name else value.T @ value for name, value in matrices]
    distances = [torch.norm(found - torch.eye(len(found), device=found.device)) for found in covariances]
    return weight * torch.stack(distances).mean()


def allocate(llm: nn.Module, step: int) -> None:
    """Move the budget of ranks after optimizer step `step`, counted from 1, before gradients are cleared."""
    tuner: Any = llm
    tuner.base_model.update_and_allocate(step)


def state_of(llm: nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return the importance of ranks and which ranks are kept: tensors, and plain values."""
    tuner: Any = llm
    allocator = tuner.base_model.rankallocator
    tables = {"ipt": allocator.ipt, "exp_avg_ipt": allocator.exp_avg_ipt, "exp_avg_unc": allocator.exp_avg_unc}
    tensors = {f"{name}/{key}": value for name, table in tables.items() for key, value in table.items()}
    return tensors, {"rank_pattern": _config(llm).rank_pattern}


def set_state(llm: nn.Module, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
    """Set what `state_of` returned."""
    tuner: Any = llm
    allocator, device = tuner.base_model.rankallocator, next(llm.parameters()).device
    tables: dict[str, dict[str, torch.Tensor]] = {name: {} for name in STATISTICS}
    for key, value in tensors.items():
        name, _, parameter = key.partition("/")
        tables[name][parameter] = value.to(device)
    allocator.ipt, allocator.exp_avg_ipt, allocator.exp_avg_unc = (tables[name] for name in STATISTICS)
    _config(llm).rank_pattern = facts["rank_pattern"]


@contextmanager
def whole_ranks(llm: Any) -> Iterator[None]:
    """Let PEFT read and write all ranks, in the shapes of a new adapter; those that were taken away are zero."""
    config = llm.active_peft_config
    pattern = config.rank_pattern if isinstance(config, AdaLoraConfig) else None
    if pattern is not None:
        config.rank_pattern = None
    yield
    if pattern is not None:
        config.rank_pattern = pattern


def _config(llm: Any) -> AdaLoraConfig:
    config = llm.active_peft_config
    assert isinstance(config, AdaLoraConfig)
    return config
