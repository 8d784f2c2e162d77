"""The dtype policy: what weights are kept in, what they compute in, whether the loss is scaled. Decided here alone.

| `model.llm.dtype` | frozen weights | trained weights | computes in | loss scaling |
|---|---|---|---|---|
| `float32` | float32 | float32 | float32 | no |
| `bfloat16` | bfloat16 | float32; bfloat16 with `train.pure_bf16` | bfloat16 (autocast) | no |
| `float16`, on CUDA | float16 | float32 | float16 (autocast) | yes (GradScaler) |
| `auto` | as `bfloat16` on a GPU with bfloat16 units, as `float16` on an older one, as `float32` elsewhere | | | |

- Trained weights are master weights in float32: an update smaller than 1/512 of a weight, which most are in full tuning
  with a rate near 1e-5, would be rounded away in bfloat16 (Micikevicius et al. 2017, arXiv:1710.03740, section 3.1).
  It holds for the projector, for adapters, and for language model and vision encoder where they train themselves.
- 4-bit weights compute in the dtype of the table; 8-bit ones as LLM.int8 does.
- Hidden states go through the language model in the dtype it computes in; the projector takes features of any dtype and
  its outputs are cast to that of the text embeddings. The loss is float32.
- Checkpoints hold trained weights as they are kept, so that a resume is exact.
- A model that answers has all its weights in `model.llm.dtype`, but projector and adapters in float32.
"""

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from mmtune.errors import ConfigError
from mmtune.lookup import lookup

PLACE = "model.llm.dtype"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the dtype that a language model computes in; `auto` as the table above says.

    A CPU without bf16 units is 4 to 7 times slower in bf16 than in fp32.
    """
    if name != "auto":
        return lookup(DTYPES, name, PLACE)
    if device.type != "cuda":
        return torch.float32
    has_units = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if has_units else torch.float16


def require_trainable(dtype: torch.dtype, device: torch.device, pure_bf16: bool) -> None:
    """Check that a run can train in a dtype on a device.

    Raises:
        ConfigError: float16 on a CPU, or `pure_bf16` in another dtype.
    """
    if dtype == torch.float16 and device.type != "cuda":
        where = "the CPU" if device.type == "cpu" else device.type
        message = f"float16 trains on CUDA alone: its loss scaling needs a GPU of NVIDIA (this run is on {where})."
        raise ConfigError(PLACE, f"{message} Take float32, or bfloat16.")
    if pure_bf16 and dtype != torch.bfloat16:
        got = f"model.llm.dtype is {str(dtype).removeprefix('torch.')} here"
        raise ConfigError("train.pure_bf16", f"keeps weights in bfloat16 ({got}). Set it to false, or dtype: bfloat16.")


def keep_trained_weights_in(model: nn.Module, dtype: torch.dtype) -> None:
    """Cast what trains to a dtype, in place: parameters stay the objects they are, tied ones stay tied."""
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)


def compute_dtype(llm: Any) -> torch.dtype:
    """Return the dtype that a causal language model of transformers was loaded to compute in.

    Its weights may be kept in another one: those that train, and those that are quantized.
    """
    return llm.config.dtype or next(iter(llm.parameters())).dtype


def computing_in(dtype: torch.dtype, device: torch.device) -> AbstractContextManager[Any]:
    """Let matrix products compute in a dtype, whatever the weights are kept in; in float32 nothing is changed."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)


def to_autocast(hidden: torch.Tensor) -> torch.Tensor:
    """Return hidden states in the dtype of autocast, where it is on.

    Embeddings of a table that trains are float32 and autocast does not touch them; the residual stream, which blocks
    keep for the backward pass, would be twice as large as that of a frozen table.
    """
    kind = hidden.device.type
    return hidden.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else hidden
