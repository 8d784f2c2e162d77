"""A LoRA on Llama's query, key and value as one on InternLM2's fused matrix, exactly."""

from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer

from mmtune.models.internlm2 import QKV, WQKV, fuse_wqkv, internlm2_name


@dataclass(frozen=True)
class Lora:
    """One low-rank update, `scale * b @ a`.

    Attributes:
        a: float[r, in].
        b: float[out, r].
        scale: `alpha / r`.
    """

    a: torch.Tensor
    b: torch.Tensor
    scale: float

    @property
    def rank(self) -> int:
        """The inner width."""
        return self.a.shape[0]


def loras_of(llm: PeftModel) -> dict[str, Lora]:
    """Return the LoRA of each linear layer by the layer's name in Llama, such as `model.layers.0.mlp.up_proj`."""
    found = {}
    for name, module in llm.get_base_model().named_modules():
        if isinstance(module, LoraLayer):
            layer: Any = module
            matrices = layer.lora_A["default"].weight, layer.lora_B["default"].weight
            a, b = (matrix.detach().cpu().contiguous() for matrix in matrices)
            found[name] = Lora(a, b, float(layer.scaling["default"]))
    return found


def fused_loras(loras: dict[str, Lora], config: Any) -> dict[str, Lora]:
    """Rename to InternLM2 and fuse query, key and value.

    Args:
        loras: from `loras_of`.
        config: of the Llama.

    Returns:
        The same updates by InternLM2's names. Where q, k and v have matrices `a` of their own, the fused rank is the
        sum of theirs: `a` stacked, and each `b` in its own columns.
    """
    found = {}
    for name, lora in loras.items():
        part = next((part for part in QKV if name.endswith(f".{part}")), None)
        if part is None:
            found[internlm2_name(f"{name}.")[:-1]] = lora
            continue
        block = name.removesuffix(f".{part}")
        fused = f"{block}.{WQKV}"
        if fused not in found:
            found[fused] = _fuse([loras.get(f"{block}.{key}") for key in QKV], config)
    return found


def _fuse(parts: list[Lora | None], config: Any) -> Lora:
    """Fuse the updates of query, key and value; None stands for one without an update."""
    given = [lora for lora in parts if lora is not None]
    first = given[0]
    is_shared = len(given) == 3 and all(torch.equal(lora.a, first.a) and lora.scale == first.scale for lora in given)
    rank = first.rank if is_shared else sum(lora.rank for lora in given)
    rows = [config.num_attention_heads, config.num_key_value_heads, config.num_key_value_heads]
    wide, start = [], 0
    for lora, heads in zip(parts, rows, strict=True):
        columns = torch.zeros(heads * config.head_dim, rank, dtype=first.b.dtype)
        if lora is not None:
            columns[:, start : start + lora.rank] = lora.b * (lora.scale / first.scale)
            start += 0 if is_shared else lora.rank
        wide.append(columns)
    a = first.a if is_shared else torch.cat([lora.a for lora in given])
    b = fuse_wqkv(wide[0], wide[1], wide[2], config.num_attention_heads, config.num_key_value_heads)
    return Lora(a, b.contiguous(), first.scale)


def adapter_config(loras: dict[str, Lora], base: str, dropout: float) -> dict[str, Any]:
    """Return PEFT's `adapter_config.json`, with the keys that also old versions of PEFT know.

    Args:
        loras: by the names of their layers.
        base: name or path of the base model.
        dropout: of the training.
    """
    ranks = [lora.rank for lora in loras.values()]
    rank = max(set(ranks), key=ranks.count)
    alpha = next(lora.rank * lora.scale for lora in loras.values() if lora.rank == rank)
    others = {name: lora for name, lora in loras.items() if (lora.rank, lora.rank * lora.scale) != (rank, alpha)}
    return {
        "base_model_name_or_path": base,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": alpha,
        "lora_dropout": dropout,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": rank,
        "rank_pattern": {name: lora.rank for name, lora in others.items()},
        "alpha_pattern": {name: lora.rank * lora.scale for name, lora in others.items()},
        "target_modules": sorted({name.rsplit(".", 1)[-1] for name in loras}),
        "task_type": "CAUSAL_LM",
    }
