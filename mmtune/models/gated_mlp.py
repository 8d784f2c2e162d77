"""Gated MLPs (SwiGLU) that keep less for the backward pass: the activation is computed again instead of kept."""

from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers.activations import SiLUActivation

GATED_MLP = {"gate_proj", "up_proj", "down_proj", "act_fn"}
"""The children of a gated MLP, as the models of Llama's kind name them."""


class SwiGLU(torch.autograd.Function):
    """`silu(gate) * up` (Shazeer 2020, arXiv:2002.05202), which keeps its two inputs alone.

    Written as two operations, autograd also keeps `silu(gate)`: a third of what a gated MLP keeps. Computing it again
    costs a pass over memory, no matrix product.
    """

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        """Return float[..., N] of gate and up float[..., N]."""
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the gradients of gate and up; silu' = s + silu * (1 - s) with s the sigmoid."""
        (gradient,) = gradients
        gate, up = ctx.saved_tensors
        sigmoid = torch.sigmoid(gate)
        activated = gate * sigmoid
        of_up = gradient * activated
        of_gate = (1 - sigmoid).mul_(activated).add_(sigmoid).mul_(up).mul_(gradient)
        return of_gate, of_up


def recompute_gated_activations(llm: Any) -> int:
    """Let the gated MLPs of a model keep less; return how many do.

    Those whose output would change, because their forward pass is more than `down(act(gate(x)) * up(x))` with SiLU,
    stay as they are.

    Args:
        llm: a model of transformers, maybe inside a PEFT wrapper.
    """
    changed, embeddings = 0, llm.get_input_embeddings().weight
    for module in llm.modules():
        children = dict(module.named_children())
        if children.keys() >= GATED_MLP and isinstance(children["act_fn"], nn.SiLU | SiLUActivation):
            forward = partial(_forward, module)
            if _agree(module, forward, embeddings):
                module.forward = forward
                changed += 1
    return changed


def _forward(mlp: Any, x: torch.Tensor) -> torch.Tensor:
    return mlp.down_proj(SwiGLU.apply(mlp.gate_proj(x), mlp.up_proj(x)))


@torch.no_grad()
def _agree(mlp: Any, forward: Any, like: torch.Tensor) -> bool:
    """Whether another forward pass gives the same; both without dropout, on an input that is not random.

    On the meta device there are no values to compare: the names of the children have to do.

    Args:
        mlp: the module.
        forward: from float[1, T, hidden_size] to the same.
        like: the input has its dtype and device; the MLP's own weights may be quantized.
    """
    if like.device.type == "meta":
        return True
    modes = {module: module.training for module in mlp.modules() if isinstance(module, nn.Dropout)}
    for module in modes:
        module.eval()
    width = mlp.gate_proj.in_features
    x = torch.linspace(-1, 1, 4 * width, device=like.device, dtype=like.dtype).view(1, 4, width)
    expected, found = mlp(x), forward(x)
    for module, mode in modes.items():
        module.train(mode)
    return torch.allclose(found, expected, rtol=1e-3, atol=1e-5)
