"""How many bytes an optimizer keeps for the weights it trains, without making it."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

BLOCK_8BIT = 256
SMALLEST_8BIT = 4096
"""bitsandbytes: weights that share a constant, and the smallest tensor whose states are quantized."""

TABLE_BYTES = 256 * 4
"""The table of 8-bit values that all tensors share; one for each state."""


@dataclass(frozen=True)
class States:
    """What a family of optimizers keeps.

    Attributes:
        number: states as large as the weight.
        bits: of a number in them; 0: as the weight.
        has_step: torch's own also keep the step of each tensor, in float32.
    """

    number: int
    bits: int = 0
    has_step: bool = False


FAMILIES: tuple[tuple[str, States], ...] = (
    ("ademamix_8bit", States(3, 8)),
    ("ademamix", States(3, 32)),
    ("lion_8bit", States(1, 8)),
    ("lion", States(1, 32)),
    ("rmsprop_bnb_8bit", States(1, 8)),
    ("rmsprop_bnb", States(1, 32)),
    ("rmsprop", States(1, has_step=True)),
    ("adagrad", States(1, has_step=True)),
    ("8bit", States(2, 8)),
    ("adamw_torch", States(2, has_step=True)),
    ("32bit", States(2, 32)),
    ("sgd", States(0)),
)
"""Part of an optimizer's name -> what it keeps; the first that fits. Any other is taken to keep two states."""


def optimizer_bytes(name: str, weights: Iterable[torch.Tensor], options: dict[str, Any] | None = None) -> int:
    """Return the bytes of an optimizer's states after its first step.

    Exact for torch's own, Adafactor and those of bitsandbytes: a test compares them with what the optimizers hold. Of
    GaLore and APOLLO, whose states are smaller, and any other: two numbers for each weight, in its dtype.

    Args:
        name: of the optimizer, as transformers has it.
        weights: that are trained.
        options: `train.optim_args`.
    """
    trained = list(weights)
    if name == "adafactor":
        return sum(_factored(value) for value in trained)
    family = next((states for part, states in FAMILIES if part in name), States(2))
    if name.startswith("sgd") and float((options or {}).get("momentum", 0)):
        family = States(1)
    if family.bits == 8:
        return _in_8bit(trained, family.number)
    size = sum(value.nbytes if not family.bits else value.numel() * family.bits // 8 for value in trained)
    return family.number * size + (4 * len(trained) if family.has_step else 0)


def _in_8bit(weights: list[torch.Tensor], number: int) -> int:
    """A byte for each weight and a constant for every 256; small tensors stay in float32."""
    large = [value.numel() for value in weights if value.numel() >= SMALLEST_8BIT]
    small = sum(value.numel() for value in weights if value.numel() < SMALLEST_8BIT)
    packed = sum(size + 4 * math.ceil(size / BLOCK_8BIT) for size in large)
    return number * (packed + 4 * small) + (min(number, 2) * TABLE_BYTES if large else 0)


def _factored(weight: torch.Tensor) -> int:
    """Adafactor (Shazeer & Stern 2018, arXiv:1804.04235): row and column of a matrix, or all of a vector; a mean."""
    if weight.dim() < 2:
        return 4 * (weight.numel() + 1)
    *rest, columns = weight.shape
    return 4 * (math.prod(rest) + math.prod(rest[:-1]) * columns + 1)


def step_workspace(name: str, weights: Iterable[torch.Tensor]) -> int:
    """Return the bytes that an optimizer makes and gives back in a step: roots of AdamW, where it is not fused."""
    return sum(value.nbytes for value in weights) if name == "adamw_torch" else 0
