"""Quantized base weights by bitsandbytes: the kinds, what they say as dense weights, how much memory they take."""

import importlib.util
import logging
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from mmtune.errors import ModelError
from mmtune.lookup import lookup

BITS = {"nf4": 4, "int8": 8}
"""Kinds of quantization and the bits that a weight has in them.

`nf4`: 4-bit NormalFloat, computed with as dense weights (QLoRA, Dettmers et al. 2023, arXiv:2305.14314).
`int8`: LLM.int8 (Dettmers et al. 2022, arXiv:2208.07339): 8-bit rows; inputs are rounded to 8 bit too, but for
columns of outliers. On a CPU that trains, bitsandbytes computes with dense weights instead.
"""


LAYERS = {"Linear4bit": "nf4", "Linear8bitLt": "int8"}
"""Classes of bitsandbytes by name: it may not be installed, and takes a second to import."""


def quantization_of(layer: nn.Module) -> str | None:
    """Return a key of `BITS` for a layer of bitsandbytes, None for another one."""
    place = type(layer)
    return LAYERS.get(place.__name__) if place.__module__ == "bitsandbytes.nn.modules" else None


def quiet_bitsandbytes() -> None:
    """Keep bitsandbytes to errors, where nobody has set its level.

    LLM.int8 warns of every layer in every step whose input is not float16, and a CPU with AVX512-BF16 gets a warning
    at import that a kernel, which nothing here uses, is not on disk.
    """
    log = logging.getLogger("bitsandbytes")
    if log.level == logging.NOTSET:
        log.setLevel(logging.ERROR)


def quantization_config(name: str, dtype: torch.dtype, double_quantization: bool) -> Any:
    """Return transformers' config of a quantization.

    Args:
        name: a key of `BITS`.
        dtype: in which 4-bit weights compute.
        double_quantization: quantize the constants of 4-bit weights too, which saves 0.4 bit a weight.

    Raises:
        ModelError: bitsandbytes is not installed.
    """
    from transformers import BitsAndBytesConfig

    bits = lookup(BITS, name, "model.llm.quantization")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError("model.llm.quantization", f"{name} needs bitsandbytes. Run: pip install 'mmtune[qlora]'")
    if bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=name,
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_use_double_quant=double_quantization,
    )


def keep_4bit_weights(llm: PreTrainedModel) -> None:
    """Keep bitsandbytes from repacking weights for CPUs with AVX512-BF16 when a model first answers.

    It rounds the constants of the quantization to bfloat16, for good: the model that is trained on after an answer, or
    saved, would be another one. Layers whose width is no multiple of 64 it cannot repack at all.
    """
    from bitsandbytes.nn import Linear4bit

    for module in llm.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


@torch.no_grad()
def dequantized_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the dense weight float[out, in] that each quantized layer of a model stands for, by the layer's name."""
    from bitsandbytes.functional import dequantize_4bit, int8_vectorwise_dequant
    from bitsandbytes.nn import Linear4bit, Linear8bitLt

    found: dict[str, torch.Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, Linear4bit):
            weight: Any = module.weight
            found[name] = dequantize_4bit(weight.data, weight.quant_state)
        elif isinstance(module, Linear8bitLt):
            found[name] = int8_vectorwise_dequant(module.weight.data, _int8_scales(module))
    return found


def _int8_scales(layer: Any) -> torch.Tensor:
    """The largest absolute value of each row, float[out]; the first forward pass moves it to the layer's state."""
    scales = layer.weight.SCB if layer.weight.SCB is not None else layer.state.SCB
    assert scales is not None, "this layer is not quantized yet"
    return scales


def weight_sizes(module: nn.Module, name: str, parameter: torch.Tensor) -> tuple[int, int]:
    """Return how many numbers a parameter stands for and how many bytes it takes, its constants included.

    4-bit weights lie two to a byte, so that their tensor has half as many entries as there are weights.

    Args:
        module: that holds the parameter.
        name: of the parameter in it.
        parameter: itself.
    """
    quantization = quantization_of(module) if name == "weight" else None
    if quantization is None:
        return parameter.numel(), parameter.nbytes
    packed: Any = parameter
    if BITS[quantization] == 4:
        state = packed.quant_state
        constants = [state.absmax] + ([state.state2.absmax, state.state2.code, state.offset] if state.nested else [])
        return state.shape.numel(), packed.nbytes + sum(tensor.nbytes for tensor in constants)
    return packed.numel(), packed.nbytes + _int8_scales(module).nbytes
