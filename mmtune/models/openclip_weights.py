"""The weights of an open_clip ViT as those of transformers' `CLIPVisionModel`: the same network under other names.

open_clip fuses query, key and value in one matrix inside `nn.MultiheadAttention`; the tower of transformers has them
apart, which is what adapters and exports need. The conversion is exact. open_clip itself is not needed here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from mmtune.errors import ModelError

NAMES = {
    "class_embedding": "embeddings.class_embedding",
    "positional_embedding": "embeddings.position_embedding.weight",
    "conv1.weight": "embeddings.patch_embedding.weight",
    "ln_pre.weight": "pre_layrnorm.weight",
    "ln_pre.bias": "pre_layrnorm.bias",
}
BLOCK_NAMES = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
"""Names of open_clip -> those of transformers, the ones of a block without its `transformer.resblocks.N`."""

BLOCKS = "transformer.resblocks."
FUSED = "attn.in_proj_"
UNUSED = ("ln_post.", "proj", "attn_pool.", "attn_pool_contrastive.")
"""What comes after the blocks; features are taken before it."""


@dataclass(frozen=True)
class ClipShape:
    """What the weights of a tower do not say of it.

    Attributes:
        image_size: side of the images in pixels.
        num_heads: of each block.
        hidden_act: `quick_gelu`, `gelu` or `gelu_pytorch_tanh`.
        layer_norm_eps: of the norms.
    """

    image_size: int
    num_heads: int
    hidden_act: str
    layer_norm_eps: float = 1e-5


def to_clip(weights: dict[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    """Rename and split the weights of open_clip's `visual`; what comes after the blocks is left out.

    Raises:
        ModelError: a weight is none of such a tower.
    """
    for name, tensor in weights.items():
        if name in NAMES:
            yield NAMES[name], tensor
        elif name.startswith(BLOCKS):
            number, _, rest = name.removeprefix(BLOCKS).partition(".")
            yield from ((f"encoder.layers.{number}.{ours}", part) for ours, part in _of_block(rest, tensor))
        elif not name.startswith(UNUSED):
            raise ModelError("model.vision.name", f"'{name}' is no weight of a CLIP tower. Take another model.")


def _of_block(name: str, tensor: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    if name.startswith(FUSED):
        for part, rows in zip("qkv", tensor.chunk(3), strict=True):
            yield f"self_attn.{part}_proj.{name.removeprefix(FUSED)}", rows.clone()
        return
    module, _, kind = name.rpartition(".")
    if module not in BLOCK_NAMES:
        raise ModelError("model.vision.name", f"'{name}' is no weight of a CLIP block. Take another model.")
    yield f"{BLOCK_NAMES[module]}.{kind}", tensor


def clip_tower(weights: dict[str, torch.Tensor], shape: ClipShape) -> CLIPVisionModel:
    """Return open_clip's `visual` as a tower of transformers, without its last norm.

    Args:
        weights: the state dict of `visual`, in the dtype that the tower shall have.
        shape: of the same tower.

    Raises:
        ModelError: a weight is missing, left over or of another shape.
    """
    width, _, patch_size, _ = weights["conv1.weight"].shape
    numbers = {name.removeprefix(BLOCKS).split(".")[0] for name in weights if name.startswith(BLOCKS)}
    config = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=weights[f"{BLOCKS}0.mlp.c_fc.weight"].shape[0],
        num_hidden_layers=len(numbers),
        num_attention_heads=shape.num_heads,
        image_size=shape.image_size,
        patch_size=patch_size,
        hidden_act=shape.hidden_act,
        layer_norm_eps=shape.layer_norm_eps,
    )
    with torch.device("meta"):
        tower = CLIPVisionModel(config)
    tower.post_layernorm = nn.Identity()  # type: ignore[assignment]
    if "ln_pre.weight" not in weights:
        tower.pre_layrnorm = nn.Identity()  # type: ignore[assignment]
    try:
        tower.load_state_dict(dict(to_clip(weights)), assign=True)
    except RuntimeError as error:
        message = f"its weights do not make a CLIP tower: {' '.join(str(error).split())[:200]}. Take another model."
        raise ModelError("model.vision.name", message) from None
    num_positions = weights["positional_embedding"].shape[0]
    positions: Any = torch.arange(num_positions).expand((1, -1))
    tower.embeddings.position_ids = positions  # a buffer that is in no file
    return tower.eval()
