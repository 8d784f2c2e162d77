"""LoRA layers in one step: the adapter's product is added into the frozen layer's output, forward and backward.

PEFT writes `base(x) + B(A(dropout(x))) * scaling` as separate operations, each with a tensor as large as the output,
and under bfloat16 weights computes the adapter in fp32. Here nothing of that size is made besides the output itself,
the adapter is computed in the dtype of the frozen layer from weights that stay fp32, and 4-bit weights are made dense
once in a pass.
Parameters, files and everything else stay PEFT's.
"""

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from peft.import_utils import is_bnb_4bit_available
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import nn
from torch.nn import functional as F

ADAPTER = "default"


class LoRALinear(torch.autograd.Function):
    """`x W^T + bias + scaling * x_adapter A^T B^T` with gradients of x, x_adapter, A and B.

    Source: LoRA (Hu et al. 2021, arXiv:2106.09685), equation 3.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, x_adapter: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scaling: float, base: Any
    ) -> torch.Tensor:
        """Return float[N, out].

        Args:
            ctx: of autograd.
            x: float[N, in].
            x_adapter: float[N, in], `x` after dropout, or `x` itself.
            a: float[r, in].
            b: float[out, r].
            scaling: of the adapter.
            base: the frozen layer.
        """
        with _no_autocast(x.device.type):
            weight = dense_weight(base, x.dtype)
            inner = x_adapter.to(weight.dtype) @ a.t().to(weight.dtype)
            bias = None if base.bias is None else base.bias.to(weight.dtype)
            out = F.linear(x.to(weight.dtype), weight, bias).addmm_(inner, b.t().to(weight.dtype), alpha=scaling)
        ctx.save_for_backward(x_adapter, a, b, inner)
        ctx.scaling, ctx.base, ctx.is_shared, ctx.dtype = scaling, base, x_adapter is x, x.dtype
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of x, x_adapter, A and B."""
        (gradient,) = gradients
        x_adapter, a, b, inner = ctx.saved_tensors
        of_x = of_adapter = None
        with _no_autocast(gradient.device.type):
            of_inner = (gradient @ b.to(gradient.dtype)).mul_(ctx.scaling)
            of_a = of_inner.t() @ x_adapter.to(gradient.dtype)
            of_b = (gradient.t() @ inner).mul_(ctx.scaling)
            if ctx.needs_input_grad[0]:
                of_x = gradient @ dense_weight(ctx.base, ctx.dtype)
            if ctx.is_shared and of_x is not None:
                of_x = of_x.addmm_(of_inner, a.to(gradient.dtype)).to(ctx.dtype)
            elif not ctx.is_shared and ctx.needs_input_grad[1]:
                of_adapter = (of_inner @ a.to(gradient.dtype)).to(x_adapter.dtype)
        return of_x, of_adapter, of_a.to(a.dtype), of_b.to(b.dtype), None, None


def _no_autocast(device_type: str) -> AbstractContextManager[Any]:
    """Let dtypes be as they are written here; the meta device, on which shapes are followed, knows no autocast."""
    return torch.autocast(device_type, enabled=False) if device_type != "meta" else nullcontext()


def dense_weight(layer: Any, dtype: torch.dtype) -> torch.Tensor:
    """Return the weight float[out, in] of a frozen layer; that of a 4-bit one in its compute dtype.

    Args:
        layer: a linear layer.
        dtype: of the input, which a 4-bit layer that was told no dtype computes in.
    """
    if type(layer) is nn.Linear:
        return layer.weight
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(layer.weight.data, layer.weight.quant_state).to(layer.compute_dtype or dtype)


def fuse_lora(model: nn.Module) -> int:
    """Let the LoRA layers of a model run in one step; return how many do.

    Others stay PEFT's: variants such as DoRA, layers with a bias of their own in the adapter, quantizations other than
    4-bit, and any that are merged, disabled or sharded when they run.
    """
    changed, frozen_kinds = 0, _frozen_kinds()
    for module in model.modules():
        kind = frozen_kinds.get(type(module))
        if kind is not None and type(module.base_layer) is kind and _is_plain(module):
            module.forward = partial(_forward, module, module.forward)
            changed += 1
    return changed


def _frozen_kinds() -> dict[type, type]:
    """PEFT's LoRA layers that are fused -> the frozen layer inside."""
    kinds: dict[type, type] = {LoraLinear: nn.Linear}
    if is_bnb_4bit_available():
        from bitsandbytes.nn import Linear4bit
        from peft.tuners.lora.bnb import Linear4bit as LoraLinear4bit

        kinds[LoraLinear4bit] = Linear4bit
    return kinds


def _is_plain(layer: Any) -> bool:
    """Whether a LoRA layer is as in the paper: one adapter, no variant, over a frozen layer."""
    is_alone = list(layer.lora_A) == [ADAPTER] == list(layer.active_adapters)
    is_variant = bool(layer.lora_variant) or layer.lora_bias.get(ADAPTER, False)
    return is_alone and not is_variant and not layer.fan_in_fan_out and not layer.base_layer.weight.requires_grad


def _forward(module: Any, forward: Any, x: torch.Tensor, *given: Any, **named: Any) -> torch.Tensor:
    a, b = module.lora_A[ADAPTER].weight, module.lora_B[ADAPTER].weight
    is_here = module.base_layer.weight.numel() and a.numel()  # ZeRO-3 gathers weights for the modules that hold them
    if given or named or module.disable_adapters or module.merged or not is_here:
        return forward(x, *given, **named)
    flat = x.reshape(-1, x.shape[-1])
    dropped = module.lora_dropout[ADAPTER](flat)
    out = LoRALinear.apply(flat, dropped, a, b, module.scaling[ADAPTER], module.base_layer)
    return out.to(x.dtype).view(*x.shape[:-1], -1)
