"""Adapters that start from the weights: PiSSA and OLoRA take part of a weight out of it and train that part.

The weights that are left differ from the base model's, and are kept in no file: a run keeps the adapter's first
factors, and takes their product out of the base weights again. That is exact, also where the factors came from a
random decomposition or from another device.
"""

from collections.abc import Iterator
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from peft.tuners.lora import LoraLayer
from torch import nn

ADAPTER = "default"


def starts_from_weights(llm: nn.Module) -> bool:
    """Whether a model's adapter takes its start out of the weights."""
    config = llm.active_peft_config if isinstance(llm, PeftModel) else None
    return isinstance(config, LoraConfig) and str(config.init_lora_weights).startswith(("pissa", "olora"))


@torch.no_grad()
def start_from_weights(llm: Any) -> dict[str, torch.Tensor]:
    """Let PEFT start a new adapter from the weights; return its first factors, on the CPU, for `take_out`."""
    start = str(llm.active_peft_config.init_lora_weights)
    for _, layer in _layers(llm):
        if start == "olora":
            layer.olora_init(ADAPTER)
        else:
            layer.pissa_init(ADAPTER, start)
    return first_factors(llm)


def first_factors(llm: nn.Module) -> dict[str, torch.Tensor]:
    """Return copies of the factors A and B of a new adapter, in main memory."""
    return {
        f"{name}.{matrix}": value.detach().to("cpu", copy=True)
        for name, layer in _layers(llm)
        for matrix, value in (("A", layer.lora_A[ADAPTER].weight), ("B", layer.lora_B[ADAPTER].weight))
    }


@torch.no_grad()
def take_out(llm: nn.Module, factors: dict[str, torch.Tensor]) -> None:
    """Take the product of first factors out of untouched base weights, in the same arithmetic as PEFT's start."""
    for name, layer in _layers(llm):
        weight = layer.get_base_layer().weight
        a, b = (factors[f"{name}.{matrix}"].to(weight.device) for matrix in "AB")
        weight.copy_((weight.float() - layer.scaling[ADAPTER] * b @ a).to(weight.dtype))


def _layers(llm: nn.Module) -> Iterator[tuple[str, Any]]:
    for name, module in llm.named_modules():
        if isinstance(module, LoraLayer):
            yield name, module
