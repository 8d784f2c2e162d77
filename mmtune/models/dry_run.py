"""A training step in which nothing is computed: shapes are followed, and what would lie in memory is counted.

Floating-point tensors are torch's fake tensors, which have a shape, a dtype and no memory; ids, labels and masks are
real, since what a step needs depends on them. The step is `VisionLanguageModel.forward` and its backward pass, so that
whatever is computed again, chunked or fused there is in the figures. A model of any size takes seconds.
"""

import weakref
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from mmtune.errors import ModelError
from mmtune.models.fake_weights import fake_weights
from mmtune.models.precision import computing_in
from mmtune.models.vlm import VisionLanguageModel

ACTIVATIONS, LOGITS, VISION, GRADIENTS = "activations", "logits", "vision", "gradients"
CPU = torch.device("cpu")
Aten: Any = torch.ops.aten


@dataclass(frozen=True)
class StepBytes:
    """What a training step has in memory beside weights and the optimizer's states, by kind.

    Attributes:
        peak: at the moment when it is most, gradients included.
        kept: at the end of the forward pass of the first batch: what autograd holds, and what was given.
        gradients: of all that trains, when the step is done.
    """

    peak: dict[str, int]
    kept: dict[str, int]
    gradients: int

    @property
    def peak_bytes(self) -> int:
        """All of the peak."""
        return sum(self.peak.values())


class Ledger(TorchDispatchMode):
    """Counts the bytes of all tensors that are made while it is on, each storage once and until it is given back.

    It stands above a `FakeTensorMode`: operations on real whole numbers alone are computed, all others are followed.

    Args:
        vocab_size: tensors of this width are logits.
    """

    def __init__(self, vocab_size: int):
        super().__init__()
        self.vocab_size, self.kind = vocab_size, ACTIVATIONS
        self.live: Counter[str] = Counter()
        self.peak: Counter[str] = Counter()
        self.known: dict[int, tuple[str, int]] = {}

    def leave_out(self, tensors: Iterable[torch.Tensor]) -> None:
        """Count nothing for these and their views: the weights, which are there anyway."""
        self.known |= {tensor.untyped_storage()._cdata: (ACTIVATIONS, 0) for tensor in tensors}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count what it makes."""
        kwargs = kwargs or {}
        if func in (Aten.index.Tensor, Aten.index_put.default, Aten._index_put_impl_.default):
            args = (args[0], _places(args[1]), *args[2:])  # a mask's shape would not be known
        if func is Aten._local_scalar_dense.default and args[0].dtype == torch.bool and isinstance(args[0], FakeTensor):
            return True  # whether a random number leaves a layer in: it does
        if _is_about_numbers(func, args, kwargs):
            with unset_fake_temporarily():
                found = func(*args, **kwargs)
        else:
            found = func(*args, **kwargs)
        for value in tree_iter(found):
            if isinstance(value, torch.Tensor):
                self.count(value)
        return found

    def count(self, tensor: torch.Tensor) -> None:
        """Add a tensor, unless its storage is known."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.known:
            return
        is_logits = tensor.dim() > 1 and tensor.shape[-1] == self.vocab_size and self.kind == ACTIVATIONS
        kind, size = LOGITS if is_logits else self.kind, storage.nbytes()
        self.known[key] = kind, size
        self.live[kind] += size
        weakref.finalize(storage, self._forget, key)
        if self.live.total() > self.peak.total():
            self.peak = self.live.copy()

    def _forget(self, key: int) -> None:
        kind, size = self.known.pop(key)
        self.live[kind] -= size

    def rename(self, tensor: torch.Tensor, kind: str) -> None:
        """Count a tensor as of another kind from now on."""
        key = tensor.untyped_storage()._cdata
        if key in self.known:
            before, size = self.known[key]
            self.known[key] = kind, size
            self.live[before] -= size
            self.live[kind] += size


def _is_about_numbers(func: Any, args: Any, kwargs: dict[str, Any]) -> bool:
    """Whether an operation takes and makes real whole numbers or truth values, such as ids, places and masks."""
    tensors = [value for value in tree_iter((args, kwargs)) if isinstance(value, torch.Tensor)]
    if any(isinstance(value, FakeTensor) or value.is_floating_point() for value in tensors):
        return False
    dtype = kwargs.get("dtype")
    if dtype is not None:
        return not dtype.is_floating_point
    if tensors:
        return True
    return func.overloadpacket is Aten.arange and all(isinstance(value, int) for value in args)


def _places(indices: Any) -> list[Any]:
    """Real masks as the places where they are true."""
    found: list[Any] = []
    for index in indices:
        is_mask = isinstance(index, torch.Tensor) and not isinstance(index, FakeTensor) and index.dtype == torch.bool
        if is_mask:
            with unset_fake_temporarily():
                found += index.nonzero(as_tuple=True)
        else:
            found.append(index)
    return found


def dry_step(
    model: VisionLanguageModel,
    batch: dict[str, Any],
    *,
    dtype: torch.dtype,
    image_shape: tuple[int, ...] | None = None,
    num_checkpointed: int = 0,
    accumulates: bool = False,
) -> StepBytes:
    """Follow a training step on a batch and return what it would have in memory.

    Args:
        model: as it trains, on any device, also on the meta device; it is left as it was.
        batch: ids, labels and what else a collator makes of them; no pixels.
        dtype: that the language model computes in.
        image_shape: of the batch's `pixel_values` (four numbers) or `image_features` (three); None: it has no image.
        num_checkpointed: blocks of the language model that are computed again, from the first.
        accumulates: the gradients of an earlier batch of the same optimizer step are there already.

    Raises:
        ModelError: what the model does depends on values, such as a mixture of experts.
    """
    was_training, ledger = model.training, Ledger(model.config.vocab_size)
    try:
        with torch.random.fork_rng(devices=[]), fake_weights(model) as mode:
            kept, gradients = _follow(model, batch, mode, ledger, dtype, image_shape, num_checkpointed, accumulates)
    except Exception as error:  # operations raise anything where a result depends on values that are not there
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")
        message = f"a step of this {type(model.base_llm).__name__} cannot be followed without computing it: {reason}."
        raise ModelError("mmtune plan", f"{message} Measure it with mmtune bench.") from error
    finally:
        model.train(was_training)
    return StepBytes(dict(ledger.peak), kept, gradients)


def _follow(
    model: VisionLanguageModel,
    batch: dict[str, Any],
    mode: FakeTensorMode,
    ledger: Ledger,
    dtype: torch.dtype,
    image_shape: tuple[int, ...] | None,
    num_checkpointed: int,
    accumulates: bool,
) -> tuple[dict[str, int], int]:
    """Run forward and backward pass; return what is kept between them, and the bytes of all gradients."""
    trained = [value for value in model.parameters() if value.requires_grad]
    ledger.leave_out((*model.parameters(), *model.buffers()))
    hooks = [value.register_post_accumulate_grad_hook(partial(_name_gradient, ledger)) for value in trained]
    with _checkpointing(model, num_checkpointed), _watching(model, ledger), mode, ledger, torch.enable_grad():
        ledger.kind = GRADIENTS
        for value in trained if accumulates else ():
            value.grad = torch.empty_like(value)
        ledger.kind = VISION
        given = dict(batch)
        if image_shape is not None:
            given["pixel_values" if len(image_shape) == 4 else "image_features"] = torch.empty(image_shape)
        ledger.kind = ACTIVATIONS
        model.train()
        with computing_in(dtype, CPU):
            loss = model(**given)["loss"]
        kept = dict(ledger.live)
        loss.backward()
    for hook in hooks:
        hook.remove()
    return kept, sum(value.grad.nbytes for value in trained if value.grad is not None)


def _name_gradient(ledger: Ledger, parameter: torch.Tensor) -> None:
    assert parameter.grad is not None
    ledger.rename(parameter.grad, GRADIENTS)


@contextmanager
def _watching(model: VisionLanguageModel, ledger: Ledger) -> Iterator[None]:
    """Count what the vision encoder makes as its own."""

    def enter(*_: Any) -> None:
        ledger.kind = VISION

    def leave(*_: Any) -> None:
        ledger.kind = ACTIVATIONS

    hooks = []
    if model.vision is not None:
        hooks = [model.vision.register_forward_pre_hook(enter), model.vision.register_forward_hook(leave)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _checkpointing(model: VisionLanguageModel, number: int) -> Iterator[None]:
    before = model.checkpointed_share, [block.gradient_checkpointing for block in model.blocks]
    if number:
        model.checkpointed_share = number / len(model.blocks)
        model.gradient_checkpointing_enable()
    try:
        yield
    finally:
        model.checkpointed_share, flags = before
        for block, flag in zip(model.blocks, flags, strict=True):
            block.gradient_checkpointing = flag
