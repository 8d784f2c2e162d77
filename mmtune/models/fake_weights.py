"""Weights without memory in the place of a model's own, for as long as shapes alone are followed."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from mmtune.models.quantized import quantization_of


@contextmanager
def fake_weights(model: nn.Module) -> Iterator[FakeTensorMode]:
    """Give each parameter and buffer a fake tensor of its shape and dtype; give the own ones back in the end.

    Yields the mode that they belong to, in which alone they are of use.

    Tied parameters stay tied. Modules are the same objects, so whatever changed their forward pass stays in force.
    """
    modules: list[Any] = list(model.modules())
    tables: list[Any] = [table for module in modules for table in (module._parameters, module._buffers)]
    before = [dict(table) for table in tables]
    states = {module: module.state for module in modules if quantization_of(module) == "int8"}
    rotary = [module for module in modules if vars(module).get("rope_type") == "dynamic"]
    fakes: dict[int, Any] = {}
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode:
        for module in modules:
            for table in (module._parameters, module._buffers):
                for name, value in table.items():
                    if value is not None:
                        if id(value) not in fakes:
                            fakes[id(value)] = _fake(module, name, value)
                        table[name] = fakes[id(value)]
    for module in rotary:
        module.rope_type = "default"  # the other one grows by a number in a tensor; as large either way
    try:
        yield mode
    finally:
        for table, values in zip(tables, before, strict=True):
            table.update(values)
        for module, state in states.items():
            module.state = state
        for module in rotary:
            module.rope_type = "dynamic"


def _fake(module: Any, name: str, value: torch.Tensor) -> torch.Tensor:
    fake: Any = _empty(value)
    if isinstance(value, nn.Parameter):
        fake = nn.Parameter(fake, requires_grad=value.requires_grad)
    quantization = quantization_of(module) if name == "weight" else None
    packed: Any = value
    if quantization == "nf4":
        fake.quant_state = _fake_state(packed.quant_state)
    elif quantization == "int8":
        module.state = copy.copy(module.state)
        module.state.CB, module.state.SCB = fake, torch.empty(module.out_features)
        fake.CB = fake.SCB = None
    return fake


def _empty(value: torch.Tensor) -> torch.Tensor:
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="cpu")


def _fake_state(state: Any) -> Any:
    """The constants of a 4-bit weight."""
    fake = copy.copy(state)
    fake.absmax, fake.code = _empty(state.absmax), _empty(state.code)
    if state.nested:
        fake.offset, fake.state2 = _empty(state.offset), copy.copy(state.state2)
        fake.state2.absmax, fake.state2.code = _empty(state.state2.absmax), _empty(state.state2.code)
    return fake
