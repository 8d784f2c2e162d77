"""How much arithmetic a training step is, and how fast a device multiplies matrices: what speed is measured against."""

import time
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from mmtune.models.blocks import blocks_of
from mmtune.models.device import synchronize
from mmtune.models.vision_encoder import VisionEncoder
from mmtune.models.vlm import VisionLanguageModel

MATMUL_SIZE = {"cpu": 1024, "cuda": 8192}
MATMUL_REPEATS = 3


class StepWork:
    """Floating-point operations of training steps, as the model needs them: a multiplication with an addition is two.

    Counted are linear layers, attention and the vision encoder's convolutions in the forward pass, and in the backward
    pass those that gradients need: gradients of inputs from the lowest trained part upwards, gradients of weights where
    they train. Attention counts the pairs of tokens that see each other. What is computed again by gradient
    checkpointing, and padding, do not count: they are the price of an implementation, not work (as in PaLM's "model
    FLOPs", Chowdhery et al. 2022, arXiv:2204.02311, appendix B).

    Args:
        model: with its parts frozen or not, as it is trained.
        image_size: pixels a side of the images; None without a vision encoder.
    """

    def __init__(self, model: VisionLanguageModel, image_size: int | None = None):
        vision, projector = model.vision, model.projector
        has_gradient = False  # whether what comes in has a gradient to pass on
        self.per_image = self.per_image_token = 0.0
        if vision is not None and projector is not None:
            assert image_size is not None
            passes = 1 if vision.is_frozen else 2 + _trained_share(vision)
            self.per_image = passes * forward_flops(vision, image_size)
            has_gradient = not vision.is_frozen
            self.per_image_token = _linear_flops([projector], has_gradient)
            has_gradient = has_gradient or _is_trained(projector)
            self.num_image_tokens = vision.num_tokens
        body: Any = model.base_llm.get_decoder()
        has_gradient = has_gradient or _is_trained(body.get_input_embeddings())
        self.per_token = self.per_pair = 0.0
        for layer in blocks_of(body) or [body]:
            has_gradient = has_gradient or _is_trained(layer)
            self.per_token += _linear_flops([layer], has_gradient)
            # Scores and weighted values are 2 * 2 * heads * head_dim operations for each pair of tokens.
            self.per_pair += 4 * _attention_width(model.config) * (3 if has_gradient else 1)
        head = model.base_llm.get_output_embeddings()
        self.per_supervised_token = _linear_flops([head], has_gradient)

    def flops(self, sample_lengths: Iterable[int], num_images: int, num_supervised: int) -> float:
        """Return the operations of a step.

        Args:
            sample_lengths: tokens of each sample, image tokens included.
            num_images: in all of them.
            num_supervised: tokens that are predicted.
        """
        lengths = list(sample_lengths)
        pairs = sum(length * (length + 1) / 2 for length in lengths)
        total = self.per_token * sum(lengths) + self.per_pair * pairs + self.per_supervised_token * num_supervised
        if num_images:
            total += num_images * (self.per_image + self.per_image_token * self.num_image_tokens)
        return total


def forward_flops(vision: VisionEncoder, image_size: int) -> int:
    """Return the operations of one image's forward pass; nothing is computed, shapes alone are followed."""
    weights = {name: tensor.to("meta") for name, tensor in [*vision.named_parameters(), *vision.named_buffers()]}
    pixels = torch.empty(1, 3, image_size, image_size, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        functional_call(vision, weights, (pixels,))
    return counter.get_total_flops()


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Return the floating-point operations a second of a large square matrix product, the best of a few runs."""
    size = MATMUL_SIZE.get(device.type, MATMUL_SIZE["cpu"])
    left, right = (torch.full((size, size), 0.5, device=device, dtype=dtype) for _ in range(2))
    best = 0.0
    for _ in range(MATMUL_REPEATS + 1):
        started = time.perf_counter()
        left @ right
        synchronize(device)
        best = max(best, 2 * size**3 / (time.perf_counter() - started))
    return best


def _linear_flops(modules: list[Any], has_gradient: bool) -> float:
    """Operations for each token of all linear layers, forward and backward."""
    total = 0.0
    for parent in modules:
        for module in parent.modules():
            if isinstance(module, nn.Linear):
                passes = 1 + has_gradient + module.weight.requires_grad
                total += 2.0 * module.in_features * module.out_features * passes
    return total


def _attention_width(config: Any) -> int:
    """Width of all heads together; 0 for a model without attention, or one that names its heads in another way."""
    facts = config.to_dict()
    heads = facts.get("num_attention_heads") or facts.get("n_head") or 0
    return heads * (facts.get("head_dim") or config.hidden_size // heads) if heads else 0


def _is_trained(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def _trained_share(module: nn.Module) -> float:
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in module.parameters()]
    return sum(size for size, trained in sizes if trained) / sum(size for size, _ in sizes)
