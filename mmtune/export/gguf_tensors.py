"""The weights of a run under llama.cpp's names: the language model's, and those of CLIP and projector (`mmproj`)."""

import re
from collections.abc import Iterator

import torch

LLM_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
"""Module names of a Llama -> those of llama.cpp; inside a block without its number."""

VISION_NAMES = {
    "embeddings.class_embedding": "v.class_embd",
    "embeddings.patch_embedding": "v.patch_embd",
    "embeddings.position_embedding": "v.position_embd",
    "pre_layrnorm": "v.pre_ln",
    "layer_norm1": "ln1",
    "layer_norm2": "ln2",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.out_proj": "attn_out",
    "mlp.fc1": "ffn_up",
    "mlp.fc2": "ffn_down",
}
"""Module names of transformers' CLIP tower -> those of llama.cpp's clip.cpp; `post_layernorm` is never run."""

BLOCK = re.compile(r"(?:model|encoder)\.layers\.(\d+)\.(.+)")


def gguf_name(name: str, names: dict[str, str], prefix: str = "") -> str:
    """Rename a weight.

    Args:
        name: such as `model.layers.0.self_attn.q_proj.weight`.
        names: `LLM_NAMES` or `VISION_NAMES`.
        prefix: before `blk`: `v.` for vision.

    Returns:
        Such as `blk.0.attn_q.weight`.
    """
    if name in names:
        return names[name]
    module, _, kind = name.rpartition(".")
    block = BLOCK.fullmatch(module)
    if block is None:
        return f"{names[module]}.{kind}"
    return f"{prefix}blk.{block[1]}.{names[block[2]]}.{kind}"


def llm_tensors(
    weights: dict[str, torch.Tensor], num_heads: int, num_key_value_heads: int, is_tied: bool
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the weights of a Llama as llama.cpp's `llama` architecture has them.

    Rows of query and key are permuted: its rotary embedding turns neighbouring rows, that of transformers the halves.
    """
    for name, tensor in weights.items():
        if name == "lm_head.weight" and is_tied:
            continue
        if ".q_proj." in name:
            tensor = permute(tensor, num_heads)
        elif ".k_proj." in name:
            tensor = permute(tensor, num_key_value_heads)
        yield gguf_name(name, LLM_NAMES), tensor


def permute(rows: torch.Tensor, num_heads: int) -> torch.Tensor:
    """Bring each head's rows from halves `[a0 a1 .. b0 b1 ..]` to neighbours `[a0 b0 a1 b1 ..]`."""
    halves = rows.reshape(num_heads, 2, -1, *rows.shape[1:])
    return halves.transpose(1, 2).reshape(rows.shape)


def vision_tensors(
    weights: dict[str, torch.Tensor], layers: list[tuple[torch.Tensor, torch.Tensor]]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the weights of a CLIP tower and of a projector of two layers.

    Args:
        weights: of transformers' `CLIPVisionModel`.
        layers: weight and bias of the projector's layers.
    """
    for name, tensor in weights.items():
        if not name.startswith("post_layernorm"):
            yield gguf_name(name, VISION_NAMES, "v."), tensor
    for number, (weight, bias) in zip((0, 2), layers, strict=True):  # 1 is the GELU between them
        yield f"mm.{number}.weight", weight
        yield f"mm.{number}.bias", bias
