"""InternLM2 as a Llama: the same network under other names, with query, key and value fused in one matrix.

The model's own remote code is silently wrong on transformers 5 (its rotary buffers stay uninitialized), so it is never
run: weights are renamed and split, exactly, while they are read. Layout: the InternLM2 technical report
(arXiv:2403.17297, section 2.2.1, "interleaved" wqkv) and the released modelling code.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from mmtune.errors import ModelError
from mmtune.models.checkpoint_files import read_weights
from mmtune.models.json_files import read_json

MODEL_TYPE = "internlm2"
NAMES = {
    "tok_embeddings": "embed_tokens",
    "output": "lm_head",
    "attention.wo": "self_attn.o_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w3": "mlp.up_proj",
    "feed_forward.w2": "mlp.down_proj",
}
"""Module names of InternLM2 -> those of Llama; all others are the same."""

WQKV = "attention.wqkv"
QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
COPIED_KEYS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
    "hidden_act",
    "initializer_range",
    "rms_norm_eps",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)


def llama_config(values: dict[str, Any], place: str = "config.json") -> LlamaConfig:
    """Return the Llama config of an InternLM2 `config.json`, read as plain JSON.

    Raises:
        ModelError: a key is missing, or the model has a part that Llama does not.
    """
    needed = [key for key in ("vocab_size", "hidden_size", "num_attention_heads") if key not in values]
    if needed:
        raise ModelError(place, f"has no '{needed[0]}', so it is no InternLM2 config. Download this file again.")
    heads = values["num_attention_heads"]
    copied = {key: values[key] for key in COPIED_KEYS if values.get(key) is not None}
    bias = bool(values.get("bias", False))
    return LlamaConfig(
        **({"num_key_value_heads": heads} | copied),
        attention_bias=bias,
        mlp_bias=False,
        tie_word_embeddings=bool(values.get("tie_word_embeddings", False)),
        rope_parameters=_rope_parameters(values, place),
    )


def _rope_parameters(values: dict[str, Any], place: str) -> dict[str, Any]:
    theta = float(values.get("rope_theta", 10000.0))
    scaling = values.get("rope_scaling")
    if scaling is None:
        return {"rope_type": "default", "rope_theta": theta}
    kind = scaling.get("type", scaling.get("rope_type"))
    if kind not in ("dynamic", "linear"):
        raise ModelError(
            place, f"rope_scaling type '{kind}' is not one of InternLM2's: dynamic, linear. Mend the file."
        )
    return {"rope_type": kind, "factor": float(scaling["factor"]), "rope_theta": theta}


def num_heads(config: Any) -> tuple[int, int]:
    """Return the numbers of query heads and of key-value heads of a Llama config."""
    return config.num_attention_heads, config.num_key_value_heads


def split_wqkv(fused: torch.Tensor, num_heads: int, num_key_value_heads: int) -> tuple[torch.Tensor, ...]:
    """Split a fused matrix into query, key and value.

    Each key-value head holds its group of queries, its key and its value: `[q_0 .. q_{g-1}, k, v]` rows of head_dim.

    Args:
        fused: [(heads + 2 * key_value_heads) * head_dim, ...]: a weight, a bias, or the B matrix of a LoRA.
        num_heads: query heads; 16 for 1.8B.
        num_key_value_heads: 8 for 1.8B.

    Returns:
        q [heads * head_dim, ...], k and v [key_value_heads * head_dim, ...], copies.
    """
    group = num_heads // num_key_value_heads
    rows = fused.reshape(num_key_value_heads, group + 2, -1, *fused.shape[1:])
    parts = rows[:, :group], rows[:, -2], rows[:, -1]
    return tuple(part.reshape(-1, *fused.shape[1:]).clone() for part in parts)


def fuse_wqkv(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, num_heads: int, num_key_value_heads: int
) -> torch.Tensor:
    """Undo `split_wqkv`, exactly."""
    group = num_heads // num_key_value_heads
    rest = query.shape[1:]
    blocks = [part.reshape(num_key_value_heads, -1, query.shape[0] // num_heads, *rest) for part in (query, key, value)]
    assert blocks[0].shape[1] == group
    return torch.cat(blocks, dim=1).reshape(-1, *rest)


def llama_name(name: str) -> str:
    """Rename a module or weight of InternLM2, wqkv excepted, to Llama's name."""
    for theirs, ours in NAMES.items():
        if f".{theirs}." in f".{name}":
            return f".{name}".replace(f".{theirs}.", f".{ours}.")[1:]
    return name


def internlm2_name(name: str) -> str:
    """Undo `llama_name`."""
    for theirs, ours in NAMES.items():
        if f".{ours}." in f".{name}":
            return f".{name}".replace(f".{ours}.", f".{theirs}.")[1:]
    return name


def to_llama(
    weights: Iterable[tuple[str, torch.Tensor]], num_heads: int, num_key_value_heads: int
) -> Iterator[tuple[str, torch.Tensor]]:
    """Rename and split weights as they come; nothing is held."""
    for name, tensor in weights:
        if name.endswith("rotary_emb.inv_freq"):
            continue  # a buffer that old files carry and that follows from the config
        if f".{WQKV}." in name:
            for ours, part in zip(QKV, split_wqkv(tensor, num_heads, num_key_value_heads), strict=True):
                yield name.replace(WQKV, ours), part
        else:
            yield llama_name(name), tensor


def to_internlm2(
    weights: dict[str, torch.Tensor], num_heads: int, num_key_value_heads: int
) -> Iterator[tuple[str, torch.Tensor]]:
    """Rename and fuse the weights of a Llama; undoes `to_llama`, exactly."""
    query, key, value = QKV
    for name, tensor in weights.items():
        if f".{query}." in name:
            keys, values = (weights[name.replace(query, other)] for other in (key, value))
            yield name.replace(query, WQKV), fuse_wqkv(tensor, keys, values, num_heads, num_key_value_heads)
        elif f".{key}." not in name and f".{value}." not in name:
            yield internlm2_name(name), tensor


def load_internlm2(
    folder: Path, *, dtype: torch.dtype, device: torch.device, quantization_config: Any = None
) -> LlamaForCausalLM:
    """Load an InternLM2 folder in the hub's layout into the Llama class, weight by weight.

    At no time is more held than the model so far and one of its matrices; with a quantization, each matrix is
    quantized as it comes.

    Args:
        folder: `config.json` and safetensors or `.bin` weights, in one file or in shards.
        dtype: of the weights that are not quantized.
        device: where the model goes.
        quantization_config: of transformers, or None.

    Raises:
        ModelError: a file is missing or cut off, or its weights are not this model's.
    """
    place = folder / "config.json"
    config = llama_config(read_json(place), str(place))
    config.dtype = dtype
    with torch.device("meta"):
        llm: Any = LlamaForCausalLM(config)
    llm.to(dtype)
    quantize = _prepare_quantization(llm, quantization_config, device)
    waiting = set(llm.state_dict())
    if config.tie_word_embeddings:
        waiting.discard("lm_head.weight")
    left_over = []
    for name, tensor in to_llama(read_weights(folder), *num_heads(config)):
        if name not in waiting:
            left_over.append(name)
            continue
        waiting.discard(name)
        _place(llm, name, tensor.to(dtype), device, quantize, folder)
    _require_all(folder, sorted(waiting), left_over)
    llm.tie_weights()
    llm.model.rotary_emb = type(llm.model.rotary_emb)(config).to(device)  # its buffers are in no file
    if quantize is not None:
        quantize.postprocess_model(llm)
    return llm.eval()


def _prepare_quantization(llm: Any, quantization_config: Any, device: torch.device) -> Any:
    if quantization_config is None:
        return None
    from transformers.quantizers.auto import AutoHfQuantizer

    quantizer = AutoHfQuantizer.from_config(quantization_config, pre_quantized=False)
    quantizer.preprocess_model(llm, device_map={"": str(device)})
    llm.hf_quantizer = quantizer
    return quantizer


def _place(llm: nn.Module, name: str, tensor: torch.Tensor, device: torch.device, quantizer: Any, folder: Path) -> None:
    """Put a tensor in the place of the empty parameter of that name, quantized on its way to the device if need be."""
    module_name, _, weight_name = name.rpartition(".")
    module: Any = llm.get_submodule(module_name)
    empty = getattr(module, weight_name)
    shape = _shape_of(module, weight_name)
    if tensor.shape != shape:
        message = f"'{name}' is {list(tensor.shape)} in the files, {list(shape)} by config.json. Download it again."
        raise ModelError(str(folder), message)
    if quantizer is not None and quantizer.param_needs_quantization(llm, name):
        value = type(empty)(tensor, requires_grad=False, **empty.__dict__).to(device)
    else:
        value = nn.Parameter(tensor.to(device), requires_grad=False)
    setattr(module, weight_name, value)


def _shape_of(module: Any, weight_name: str) -> torch.Size:
    """The shape that a weight has before quantization, which packs it."""
    if weight_name == "weight" and isinstance(module, nn.Linear):
        return torch.Size((module.out_features, module.in_features))
    return getattr(module, weight_name).shape


def _require_all(folder: Path, missing: list[str], left_over: list[str]) -> None:
    for names, what in ((missing, "misses"), (left_over, "holds unknown")):
        if names:
            shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            raise ModelError(str(folder), f"{what} {len(names)} weights ({shown}). Download the model again.")
