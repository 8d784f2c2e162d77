"""Liger kernels (Hsu et al. 2024, arXiv:2410.10989) for norms, rotary embeddings and gated MLPs, on CUDA alone."""

import importlib.util
import inspect
import sys
from collections.abc import Callable
from typing import Any

import torch
from transformers import PreTrainedModel

from mmtune.errors import ConfigError
from mmtune.lookup import lookup

PLACE = "train.use_liger_kernel"


def use_liger_kernels(llm: PreTrainedModel, device: torch.device) -> None:
    """Let a model run on Liger's kernels. Its head and loss stay: logits are made for supervised tokens alone already.

    Other models of this kind in the process stay as they are on the CPU; on CUDA they take the rotary embedding too.

    Args:
        llm: on its device.
        device: where it is.

    Raises:
        ConfigError: the device is no GPU, the package is missing, or it has no kernels for this model.
    """
    if device.type != "cuda":
        raise ConfigError(PLACE, f"Liger's kernels run on CUDA alone (got {device.type}). Set it to false.")
    if importlib.util.find_spec("liger_kernel") is None:
        raise ConfigError(PLACE, "it needs liger-kernel. Run: pip install 'mmtune[liger]'")
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN

    apply = lookup(MODEL_TYPE_TO_APPLY_LIGER_FN, llm.config.model_type, f"{PLACE}: model_type")
    known = inspect.signature(apply).parameters
    off = {name: False for name in ("cross_entropy", "fused_linear_cross_entropy") if name in known}
    module = sys.modules[type(llm).__module__]
    before = dict(vars(module))
    apply(model=llm, **off)
    for name, plain in before.items():
        # Liger also changes the module, of which models that are built later are made.
        fast = vars(module)[name]
        if fast is not plain:
            setattr(module, name, _on_cuda(fast, plain) if inspect.isfunction(plain) else plain)


def _on_cuda(fast: Callable[..., Any], plain: Callable[..., Any]) -> Callable[..., Any]:
    """A function of tensors that calls Liger's on CUDA and the module's own elsewhere."""
    if plain.__module__ == __name__:  # chosen before, for another model
        return plain

    def chosen(tensor: torch.Tensor, *others: Any, **named: Any) -> Any:
        return (fast if tensor.is_cuda else plain)(tensor, *others, **named)

    return chosen
