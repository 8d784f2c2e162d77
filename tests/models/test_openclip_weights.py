"""A tower under open_clip's names computes the same once it is a tower of transformers. open_clip is not needed."""

import importlib.util

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmtune.errors import ModelError
from mmtune.models.openclip_weights import ClipShape, clip_tower, to_clip
from mmtune.models.vision import load_vision
from mmtune.models.vit_encoders import ClipEncoder

WIDTH, HEADS, INNER, NUM_BLOCKS, PATCH, SIZE = 16, 2, 24, 3, 8, 32
ACTIVATIONS = {
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "gelu": F.gelu,
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
}


@pytest.fixture
def weights():
    """Random weights under the names that an open_clip ViT gives them."""
    generator = torch.Generator().manual_seed(0)

    def random(*size):
        return torch.randn(size, generator=generator) * 0.3

    found = {
        "class_embedding": random(WIDTH),
        "positional_embedding": random(1 + (SIZE // PATCH) ** 2, WIDTH),
        "proj": random(WIDTH, 5),
        "conv1.weight": random(WIDTH, 3, PATCH, PATCH),
    }
    for name in ("ln_pre", "ln_post"):
        found |= {f"{name}.weight": 1 + random(WIDTH), f"{name}.bias": random(WIDTH)}
    for number in range(NUM_BLOCKS):
        block = f"transformer.resblocks.{number}"
        for name in ("ln_1", "ln_2"):
            found |= {f"{block}.{name}.weight": 1 + random(WIDTH), f"{block}.{name}.bias": random(WIDTH)}
        for name, rows, columns in (
            ("attn.in_proj_", 3 * WIDTH, WIDTH),
            ("attn.out_proj.", WIDTH, WIDTH),
            ("mlp.c_fc.", INNER, WIDTH),
            ("mlp.c_proj.", WIDTH, INNER),
        ):
            found |= {f"{block}.{name}weight": random(rows, columns), f"{block}.{name}bias": random(rows)}
    return found


def reference(weights, images, activation, num_blocks):
    """What an open_clip ViT computes up to a block, with torch's own fused attention."""

    def norm(name, x):
        return F.layer_norm(x, (WIDTH,), weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-5)

    patches = F.conv2d(images, weights["conv1.weight"], stride=PATCH).flatten(2).transpose(1, 2)
    x = torch.cat([weights["class_embedding"].expand(len(images), 1, WIDTH), patches], dim=1)
    x = x + weights["positional_embedding"]
    if "ln_pre.weight" in weights:
        x = norm("ln_pre", x)
    for number in range(num_blocks):
        block = f"transformer.resblocks.{number}"
        own = {name.removeprefix(f"{block}.attn."): value for name, value in weights.items() if f"{block}.attn" in name}
        attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        attention.load_state_dict(own)
        y = norm(f"{block}.ln_1", x)
        x = x + attention(y, y, y, need_weights=False)[0]
        y = F.linear(norm(f"{block}.ln_2", x), weights[f"{block}.mlp.c_fc.weight"], weights[f"{block}.mlp.c_fc.bias"])
        x = x + F.linear(activation(y), weights[f"{block}.mlp.c_proj.weight"], weights[f"{block}.mlp.c_proj.bias"])
    return x


@pytest.mark.parametrize("hidden_act", ACTIVATIONS)
@pytest.mark.parametrize("has_pre_norm", [True, False])
def test_the_tower_computes_what_open_clip_does(weights, hidden_act, has_pre_norm):
    if not has_pre_norm:
        weights = {name: value for name, value in weights.items() if not name.startswith("ln_pre")}
    images = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    encoder = ClipEncoder(clip_tower(weights, ClipShape(SIZE, HEADS, hidden_act)), -2, {}).requires_grad_(False)
    expected = reference(weights, images, ACTIVATIONS[hidden_act], NUM_BLOCKS - 1)[:, 1:]
    torch.testing.assert_close(encoder(images), expected, rtol=1e-5, atol=1e-5)
    others = [name for name in ACTIVATIONS if name != hidden_act]
    for other in others:
        wrong = reference(weights, images, ACTIVATIONS[other], NUM_BLOCKS - 1)[:, 1:]
        assert (wrong - expected).abs().max() > 1e-4


def test_every_weight_before_the_last_norm_is_kept_as_it_is(weights):
    converted = dict(to_clip(weights))
    for name in ("in_proj_weight", "in_proj_bias"):
        kind = name.rpartition("_")[2]
        parts = [converted[f"encoder.layers.1.self_attn.{part}_proj.{kind}"] for part in "qkv"]
        assert torch.equal(torch.cat(parts), weights[f"transformer.resblocks.1.attn.{name}"])
    dropped = sum(weights[name].numel() for name in ("proj", "ln_post.weight", "ln_post.bias"))
    assert sum(map(torch.numel, converted.values())) == sum(map(torch.numel, weights.values())) - dropped


def test_weights_of_another_network_are_refused(weights):
    shape = ClipShape(SIZE, HEADS, "gelu")
    with pytest.raises(ModelError, match=r"'ls_1.gamma' is no weight of a CLIP block"):
        clip_tower(weights | {"transformer.resblocks.0.ls_1.gamma": torch.ones(WIDTH)}, shape)
    with pytest.raises(ModelError, match=r"'trunk.pos_embed' is no weight of a CLIP tower"):
        clip_tower(weights | {"trunk.pos_embed": torch.ones(WIDTH)}, shape)
    del weights["transformer.resblocks.1.mlp.c_fc.bias"]
    with pytest.raises(ModelError, match=r"do not make a CLIP tower.*fc1.bias"):
        clip_tower(weights, shape)


@pytest.mark.skipif(importlib.util.find_spec("open_clip") is not None, reason="open_clip is installed")
def test_without_the_package_the_error_names_the_command():
    with pytest.raises(ModelError, match=r"not installed. Run: pip install 'mmtune\[openclip\]'"):
        load_vision("open_clip", "ViT-L-14-336-quickgelu", torch.float32, {"pretrained": "openai"})
