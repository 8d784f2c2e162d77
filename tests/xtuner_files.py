"""Files as XTuner and mmengine write them: their names of weights, their bookkeeping objects."""

import sys
import types
from contextlib import contextmanager
from typing import ClassVar

import numpy as np
import torch

MODULES = ("mmengine", "mmengine.logging", "mmengine.logging.history_buffer")

CONFIG_TEXT = """
model = dict(
    type='xtuner.model.LLaVAModel',
    llm_lora=dict(type='peft.LoraConfig', r={r}, lora_alpha={alpha}),
    visual_encoder_lora=dict(type='peft.LoraConfig', r=2, lora_alpha=4))
"""


@contextmanager
def mmengine_installed():
    """Let objects be pickled under mmengine's name of their class; afterwards no such module exists."""

    class HistoryBuffer:
        statistics: ClassVar = {}

        def __init__(self, values):
            self.max_length = 1000000
            self._log_history, self._count_history = np.array(values), np.ones(len(values), dtype=np.int64)
            self.statistics["mean"] = HistoryBuffer.mean

        def mean(self):
            return self._log_history.mean()

        def __getstate__(self):
            return self.__dict__ | {"statistics_methods": self.statistics}

    for part in (HistoryBuffer, HistoryBuffer.mean):
        part.__module__ = MODULES[-1]
        part.__qualname__ = part.__qualname__.split("<locals>.")[-1]
    for name in MODULES:
        sys.modules[name] = types.ModuleType(name)
    sys.modules[MODULES[-1]].HistoryBuffer = HistoryBuffer
    try:
        yield HistoryBuffer
    finally:
        for name in MODULES:
            del sys.modules[name]


def write_pth(path, weights, *, r=4, alpha=8):
    """Write a checkpoint of mmengine around a state dict."""
    with mmengine_installed() as HistoryBuffer:
        log = {"train/loss": HistoryBuffer([2.5, 2.0]), "train/lr": HistoryBuffer([1e-3, 9e-4])}
        hub = {"log_scalars": log, "runtime_info": {"iter": 2181, "loss": np.float64(2.0)}, "resumed_keys": {}}
        meta = {"epoch": 0, "iter": 2181, "seed": 1, "cfg": CONFIG_TEXT.format(r=r, alpha=alpha)}
        torch.save({"meta": meta, "state_dict": weights, "message_hub": hub}, path)
    return path


def random_like(shapes, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return {name: (0.1 * torch.randn(shape, generator=generator)).to(dtype) for name, shape in shapes.items()}


def projector_shapes(width_in=16, width_out=64, prefix="projector."):
    """XTuner's projector of two layers."""
    sizes = {"0": (width_out, width_in), "2": (width_out, width_out)}
    shapes = {f"{prefix}model.{number}.weight": size for number, size in sizes.items()}
    return shapes | {f"{prefix}model.{number}.bias": (size[0],) for number, size in sizes.items()}


def llm_linears(hidden=64, inner=96, heads=4, key_value_heads=2):
    """Name and [out, in] of the linear layers of a block of InternLM2."""
    fused = (heads + 2 * key_value_heads) * hidden // heads
    return {
        "attention.wqkv": (fused, hidden),
        "attention.wo": (hidden, hidden),
        "feed_forward.w1": (inner, hidden),
        "feed_forward.w3": (inner, hidden),
        "feed_forward.w2": (hidden, inner),
    }


def lora_shapes(linears, r=4, default=".default"):
    """PEFT's two matrices of each linear layer."""
    shapes = {}
    for name, (rows, columns) in linears.items():
        shapes[f"{name}.lora_A{default}.weight"] = (r, columns)
        shapes[f"{name}.lora_B{default}.weight"] = (rows, r)
    return shapes


def llm_lora_shapes(*, num_layers=2, r=4, has_head=True, prefix="llm.", default=".default"):
    """XTuner's LoRA on all linear layers of a tiny InternLM2, its head included."""
    base = f"{prefix}base_model.model"
    linears = {
        f"{base}.model.layers.{n}.{name}": size for n in range(num_layers) for name, size in llm_linears().items()
    }
    if has_head:
        linears[f"{base}.output"] = (512, 64)
    return lora_shapes(linears, r, default)


def vision_lora_shapes(*, num_blocks=3, r=2, prefix="visual_encoder.", default=".default"):
    """XTuner's LoRA on all linear layers of a tiny CLIP tower, the last block included."""
    sizes = {f"self_attn.{name}_proj": (16, 16) for name in ("k", "v", "q", "out")}
    sizes |= {"mlp.fc1": (32, 16), "mlp.fc2": (16, 32)}
    base = f"{prefix}base_model.model.vision_model.encoder.layers"
    return lora_shapes(
        {f"{base}.{n}.{name}": size for n in range(num_blocks) for name, size in sizes.items()}, r, default
    )
