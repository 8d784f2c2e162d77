"""How many bytes a forward pass keeps for the backward pass, measured on short inputs."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.hooks import RemovableHandle

from mmtune.models.device import random_state_kept
from mmtune.models.precision import compute_dtype, computing_in
from mmtune.models.quantized import quantization_of
from mmtune.models.vlm import VisionLanguageModel

PROBE_LENGTHS = (32, 64, 128)
OUTSIDE = -1


class KeptBytes:
    """Adds up what autograd keeps: each storage once, and no parameter or buffer, which are there anyway.

    Args:
        model: whose parameters and buffers do not count.
    """

    def __init__(self, model: nn.Module):
        self.known = {value.untyped_storage().data_ptr() for value in (*model.parameters(), *model.buffers())}
        self.place = OUTSIDE
        self.bytes: dict[int, int] = {}

    def ignore(self, tensors: Iterable[Any]) -> None:
        """Leave tensors out that are kept elsewhere."""
        self.known |= {value.untyped_storage().data_ptr() for value in _flat(tensors)}

    def add(self, tensor: torch.Tensor) -> torch.Tensor:
        """Count a tensor at the present place; return it as it is."""
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.known:
            self.known.add(storage.data_ptr())
            self.bytes[self.place] = self.bytes.get(self.place, 0) + storage.nbytes()
        return tensor

    def counting(self) -> saved_tensors_hooks:
        """Count in this context what autograd keeps. The graph must live until it ends."""
        return saved_tensors_hooks(self.add, lambda tensor: tensor)


def _flat(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from _flat(value)


@dataclass(frozen=True)
class Curve:
    """Bytes kept for a sample of T tokens: `fixed + linear * T + square * T^2`; eager attention alone has a square.

    Attributes:
        fixed: once for all samples: float32 weights that were cast to compute.
        linear: for each token.
        square: for each pair of tokens.
    """

    fixed: float
    linear: float
    square: float

    def __call__(self, lengths: Sequence[int]) -> float:
        """Return the bytes kept for samples of these lengths."""
        return self.fixed + self.linear * sum(lengths) + self.square * sum(length**2 for length in lengths)


def measure_blocks(model: VisionLanguageModel) -> tuple[list[Curve], Curve]:
    """Return what each block of the language model keeps, and what it keeps outside of them.

    The whole stack runs on three short samples, each block as it is trained: with its adapter, in its dtype, in the
    attention of the run. A quadratic curve through three points is exact for all of these.
    """
    points = [_kept_by_blocks(model, length) for length in PROBE_LENGTHS]
    places = [*range(len(model.blocks)), OUTSIDE]
    curves = [_curve([kept.get(place, 0) for kept in points]) for place in places]
    return curves[:-1], curves[-1]


def _curve(kept: list[int]) -> Curve:
    square, linear, fixed = np.polyfit(PROBE_LENGTHS, kept, 2)
    floor = 0.5 / PROBE_LENGTHS[-1]  # rounding of the fit: less than a byte over the longest probe
    return Curve(max(float(fixed), 0.0), float(linear), float(square) if square > floor else 0.0)


def _kept_by_blocks(model: VisionLanguageModel, num_tokens: int) -> dict[int, int]:
    embeddings: Any = model.base_llm.get_input_embeddings().weight
    embeds = torch.zeros(1, num_tokens, embeddings.shape[1], dtype=embeddings.dtype, device=embeddings.device)
    embeds.requires_grad_(_embeds_have_gradients(model))
    kept = KeptBytes(model)
    hooks = [hook for number, block in enumerate(model.blocks) for hook in _watch(block, number, kept)]
    hooks += [
        layer.register_forward_pre_hook(partial(_count_input, kept))
        for layer in model.modules()
        if quantization_of(layer) == "int8"
    ]
    try:
        with _as_in_training(model), kept.counting():
            graph = model.hidden_states(embeds, None, [num_tokens])
        del graph
    finally:
        for hook in hooks:
            hook.remove()
    return kept.bytes


def _watch(block: nn.Module, number: int, kept: KeptBytes) -> list[RemovableHandle]:
    """Let a block be the place while it runs. What all blocks are given alike, such as rotary angles, is no block's."""

    def enter(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        kept.ignore(value for key, value in kwargs.items() if key != "hidden_states")
        kept.place = number

    def leave(*_: Any) -> None:
        kept.place = OUTSIDE

    return [block.register_forward_pre_hook(enter, with_kwargs=True), block.register_forward_hook(leave)]


def _count_input(kept: KeptBytes, module: nn.Module, args: tuple) -> None:
    """Count the input that an 8-bit layer keeps where no hook of autograd sees it."""
    if args[0].requires_grad:
        kept.add(args[0])


def _embeds_have_gradients(model: VisionLanguageModel) -> bool:
    parts: list[Any] = [model.vision, model.projector, model.base_llm.get_input_embeddings()]
    return any(value.requires_grad for part in parts if part is not None for value in part.parameters())


def measure_images(model: VisionLanguageModel, *, has_features: bool) -> float:
    """Return the bytes that vision encoder and projector keep for an image.

    Args:
        model: to be asked; 0 for a model of text.
        has_features: the encoder does not run: its features are on disk.
    """
    vision = model.vision
    if vision is None:
        return 0.0
    size = vision.preprocessing["image_size"]
    shape = (vision.num_tokens, vision.hidden_size) if has_features else (3, size, size)
    encode = model.project if has_features else model.encode_images
    one, two = (_kept_by(model, encode, torch.zeros(number, *shape, device=model.device)) for number in (1, 2))
    return float(two - one)


def _kept_by(model: VisionLanguageModel, run: Callable[[torch.Tensor], torch.Tensor], given: torch.Tensor) -> int:
    kept = KeptBytes(model)
    with _as_in_training(model), kept.counting():
        graph = run(given)
    del graph
    return sum(kept.bytes.values())


@contextmanager
def _as_in_training(model: VisionLanguageModel) -> Iterator[None]:
    """Run as a training step does, and leave mode and random generators as they were."""
    was_training, device = model.training, model.device
    with (
        random_state_kept(device),
        torch.enable_grad(),
        computing_in(compute_dtype(model.base_llm), device),
    ):
        model.train()
        try:
            yield
        finally:
            model.train(was_training)
