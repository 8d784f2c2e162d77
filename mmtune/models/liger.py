"""Liger kernels (Hsu et al. 2024, arXiv:2410.10989) for norms, rotary embeddings and gated MLPs, on CUDA alone."""

import importlib.util
import inspect

import torch
from transformers import PreTrainedModel

from mmtune.errors import ConfigError
from mmtune.lookup import lookup

PLACE = "train.use_liger_kernel"


def use_liger_kernels(llm: PreTrainedModel, device: torch.device) -> None:
    """Let a model run on Liger's kernels. Its head and loss stay: logits are made for supervised tokens alone already.

    The rotary embedding is replaced for all models of this kind in the process.

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
    apply(model=llm, **off)
