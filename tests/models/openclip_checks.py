"""Checks against open_clip itself, with random weights. `test_openclip.py` runs them where the package is."""

import json
from pathlib import Path

import mmtune.torchvision_ops  # noqa: F401  (before open_clip)

# isort: split
import open_clip
import pytest
import torch
import yaml
from safetensors.torch import save_file

from mmtune.build import load_run
from mmtune.cli import main
from mmtune.errors import ConfigError, ModelError
from mmtune.models.adapters import attach_vision_adapter
from mmtune.models.openclip import OpenClipEncoder, _clip_shape
from mmtune.models.openclip_weights import clip_tower
from mmtune.models.outline import vision_shape
from mmtune.models.vision import load_vision, vision_path
from mmtune.models.vision_towers import CLIP_MEAN, CLIP_STD
from mmtune.models.vit_encoders import ClipEncoder

VIT = {"image_size": 32, "layers": 3, "width": 16, "head_width": 8, "patch_size": 8}
TIMM = {"image_size": 160, "timm_pool": "", "timm_proj": "none"}
MODELS = {
    "tiny-quickgelu": {"quick_gelu": True, "vision_cfg": VIT},
    "tiny": {"vision_cfg": VIT},
    "tiny-clipa": {"vision_cfg": VIT | {"no_ln_pre": True, "pool_type": "avg", "act_kwargs": {"approximate": "tanh"}}},
    "tiny-pooled": {"vision_cfg": VIT | {"attentional_pool": True, "attn_pooler_heads": 2, "attn_pooler_queries": 4}},
    "tiny-scaled": {"vision_cfg": VIT | {"ls_init_value": 0.5}},
    "tiny-qknorm": {"vision_cfg": VIT | {"qk_norm": True}},
    "tiny-timm": {"vision_cfg": TIMM | {"timm_model_name": "test_vit3", "timm_pool": "map"}},
    "tiny-eva": {"vision_cfg": TIMM | {"timm_model_name": "eva02_tiny_patch14_224", "image_size": 224}},
    "tiny-resnet": {"vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None}},
}
ACTS = {"tiny-quickgelu": "quick_gelu", "tiny": "gelu", "tiny-clipa": "gelu_pytorch_tanh", "tiny-pooled": "gelu"}
TEXT = {"context_length": 8, "vocab_size": 32, "width": 16, "heads": 2, "layers": 1}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of random weights for each model; the models are known to open_clip by their names."""
    folder = tmp_path_factory.mktemp("openclip")
    for name, config in MODELS.items():
        (folder / f"{name}.json").write_text(json.dumps({"embed_dim": 16, "text_cfg": TEXT} | config))
    open_clip.add_model_config(folder)
    found = {}
    for seed, name in enumerate(MODELS):
        torch.manual_seed(seed)
        model = open_clip.create_model(name)
        with torch.no_grad():
            for value in model.visual.parameters():
                value.add_(0.1 * torch.randn_like(value))
        found[name] = folder / f"{name}.safetensors"
        save_file({key: value.contiguous() for key, value in model.state_dict().items()}, found[name])
    return found


def load(name, path, **options):
    return load_vision("open_clip", name, torch.float32, {"pretrained": str(path)} | options).eval()


def expected_features(name, path, images, index):
    model = open_clip.create_model(name, pretrained=str(path)).eval()
    with torch.no_grad():
        found = model.visual.forward_intermediates(images, indices=[index], output_fmt="NLC")
    return found["image_intermediates"][0]


@pytest.mark.parametrize(("layer", "index"), [(-2, 1), (-1, 2), (1, 0)])
@pytest.mark.parametrize("name", ACTS)
def test_a_clip_tower_becomes_one_of_transformers(weights, name, layer, index):
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    encoder = load(name, weights[name], feature_layer=layer)
    assert isinstance(encoder, ClipEncoder)
    assert encoder.tower.config.hidden_act == ACTS[name]
    assert len(encoder.tower.encoder.layers) == index + 1
    expected = expected_features(name, weights[name], images, index)
    torch.testing.assert_close(encoder(images), expected, rtol=1e-4, atol=1e-5)
    whole = clip_tower(open_clip.create_model(name, pretrained=str(weights[name])).visual.state_dict(),
                       _clip_shape(open_clip.create_model(name).visual))  # fmt: skip
    states = whole(images, output_hidden_states=True).hidden_states
    assert torch.equal(encoder(images), states[layer][:, 1:])


@pytest.mark.parametrize(("name", "size", "num_blocks"), [
    ("tiny-scaled", 32, 3), ("tiny-qknorm", 32, 3), ("tiny-timm", 160, 9), ("tiny-eva", 224, 12),
])  # fmt: skip
def test_other_vits_run_as_they_are_up_to_the_block(weights, name, size, num_blocks):
    images = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    encoder = load(name, weights[name])
    assert isinstance(encoder, OpenClipEncoder)
    expected = expected_features(name, weights[name], images, num_blocks - 2)
    features = encoder(images)
    assert torch.equal(features, expected)
    assert features.shape == (1, encoder.num_tokens, encoder.hidden_size)
    assert encoder.preprocessing["image_size"] == size
    encoder.requires_grad_(True)(images).pow(2).sum().backward()
    assert [name for name, value in encoder.named_parameters() if value.grad is None] == []


@pytest.mark.parametrize("name", [*ACTS, "tiny-scaled", "tiny-timm"])
def test_a_plan_has_the_shapes_without_the_weights(weights, name):
    real = load(name, weights[name])
    planned, source = vision_shape("open_clip", name, torch.float32, {"pretrained": "openai"})
    assert source == "open_clip"
    assert (planned.num_tokens, planned.hidden_size) == (real.num_tokens, real.hidden_size)
    shapes = [{key: value.shape for key, value in encoder.named_parameters()} for encoder in (planned, real)]
    assert shapes[0] == shapes[1]
    assert all(value.device.type == "meta" for value in planned.parameters())


def test_an_adapter_goes_on_towers_whose_layers_are_apart(weights):
    images = torch.randn(1, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    encoder = load("tiny-timm", weights["tiny-timm"])
    before = encoder(images)
    attach_vision_adapter(encoder, {"kind": "lora", "r": 2})
    assert torch.equal(encoder.eval()(images), before)
    encoder.train()(images).pow(2).sum().backward()
    trained = {name: value.grad for name, value in encoder.named_parameters() if value.requires_grad}
    assert len(trained) == 8 * 4 * 2
    assert all(bool(grad.any()) for name, grad in trained.items() if "lora_B" in name)
    with pytest.raises(ConfigError, match="attention in one fused module"):
        attach_vision_adapter(load("tiny-scaled", weights["tiny-scaled"]), {"kind": "lora"})


def test_the_preprocessing_is_open_clips(weights, tmp_path):
    clip = {"image_size": 32, "mean": CLIP_MEAN, "std": CLIP_STD, "resample": "bicubic"}
    assert load("tiny", weights["tiny"]).preprocessing == clip
    path = tmp_path / "open_clip_model.safetensors"
    path.write_bytes(weights["tiny"].read_bytes())
    given = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "interpolation": "bilinear"}
    config = {"model_cfg": {"embed_dim": 16, "text_cfg": TEXT} | MODELS["tiny"], "preprocess_cfg": given}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    own = {"image_size": 32, "mean": (0.5,) * 3, "std": (0.25,) * 3, "resample": "bilinear"}
    assert load("tiny", path).preprocessing == own
    folder = load_vision("open_clip", str(tmp_path), torch.float32, {})
    assert folder.preprocessing == own
    assert isinstance(folder, ClipEncoder)
    with pytest.raises(ModelError, match=r"holds its own weights. Set pretrained: null"):
        load(str(tmp_path), path)
    with pytest.raises(ModelError, match=r"tiny-quickgelu has QuickGELU, but .* with GELU. Take tiny."):
        load("tiny-quickgelu", path)


def test_siglip_keeps_its_own_mean_with_a_weights_file(weights):
    """The file says nothing of it; open_clip's default would be CLIP's."""
    from mmtune.models.openclip_names import checked_preprocessing

    found = checked_preprocessing("ViT-B-16-SigLIP", str(weights["tiny"]))
    assert found["mean"] == found["std"] == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("name", "pretrained", "message"),
    [
        ("ViT-L-14-336", "openai", r"has GELU, but 'openai' was trained with QuickGELU. Take ViT-L-14-336-quickgelu\."),
        ("ViT-B-32-quickgelu", "laion2b_s34b_b79k", r"is no file and no tag of ViT-B-32-quickgelu. ViT-B-32 has it\."),
        ("ViT-L-14-336-quickgelu", "openia", r"'openia' is no file and no tag .* Known: openai\."),
        ("ViT-L-14-336-quikgelu", "openai", r"open_clip has no model .* Did you mean 'ViT-L-14-336-quickgelu'"),
        ("ViT-L-14-336-quickgelu", None, r"is not set. Name a weights file or a tag .*\(its tags: openai\)"),
    ],
)
def test_names_that_do_not_fit_are_refused_before_anything_is_fetched(name, pretrained, message):
    options = {} if pretrained is None else {"pretrained": pretrained}
    with pytest.raises(ModelError, match=message):
        load_vision("open_clip", name, torch.float32, options)


def test_a_file_of_a_name_that_is_only_known_with_quickgelu_is_refused(weights):
    with pytest.raises(ModelError, match=r"every known tag was trained with QuickGELU. Take ViT-L-14-336-quickgelu"):
        load("ViT-L-14-336", weights["tiny"])


def test_files_and_networks_that_do_not_fit_are_refused(weights, tmp_path):
    with pytest.raises(ModelError, match="open_clip cannot load 'tiny-scaled'"):
        load("tiny-scaled", weights["tiny"])
    (tmp_path / "weights.pt").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="open_clip cannot load 'tiny'"):
        load("tiny", tmp_path / "weights.pt")
    with pytest.raises(ModelError, match=r"its image side is a ModifiedResNet. Take a ViT"):
        load("tiny-resnet", weights["tiny-resnet"])
    assert vision_path("open_clip", "ViT-L/14", "openai") is None
    assert vision_path("open_clip", "tiny", str(weights["tiny"])) == weights["tiny"]


@pytest.mark.parametrize("name", ["tiny-quickgelu", "tiny-timm"])
def test_an_adapter_trains_and_answers_through_the_command_line(weights, name, config_file, data_file, record, capsys):
    data_file(record("<image>\nWhat?", "A cat.", image="0.png"))
    path = config_file(f"model.vision.name={name}", "model.vision.source=open_clip", "model.vision.tune=adapter")
    config = yaml.safe_load(Path(path).read_text())
    config["model"]["vision"] |= {"pretrained": "weights.safetensors", "adapter": {"kind": "lora", "r": 2}}
    config["data"]["max_length"] = 256
    Path(path).write_text(yaml.safe_dump(config))
    Path("weights.safetensors").write_bytes(weights[name].read_bytes())
    assert main(["pretrain", path]) == 0
    Path("weights.safetensors").rename("moved.safetensors")
    capsys.readouterr()
    ask = ["chat", "run", "--image", "0.png", "--prompt", "What?", "--max-new-tokens", "2"]
    assert main([*ask, "--vision", "moved.safetensors"]) == 0
    assert capsys.readouterr().out.strip()
    assert load_run("run", vision="moved.safetensors").transform.image_size in (32, 160)
    assert main([*ask, "--vision", str(weights["tiny"])]) == 2
    assert "was trained on another vision" in capsys.readouterr().err


def test_vit_l_14_336_quickgelu_is_the_same_tower():
    """At the real shape: 304 M parameters, layer -2, 576 patches of width 1024."""
    torch.manual_seed(0)
    visual = open_clip.create_model("ViT-L-14-336-quickgelu").visual.eval()
    assert sum(value.numel() for value in visual.parameters()) == 304_293_888
    images = torch.randn(1, 3, 336, 336, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = visual.forward_intermediates(images, indices=[22], output_fmt="NLC", stop_early=True)
    expected = found["image_intermediates"][0]
    shape = _clip_shape(visual)
    assert (shape.hidden_act, shape.num_heads, shape.image_size) == ("quick_gelu", 16, 336)
    encoder = ClipEncoder(clip_tower(visual.state_dict(), shape), -2, {}).requires_grad_(False)
    assert len(encoder.tower.encoder.layers) == 23
    features = encoder(images)
    assert features.shape == (1, 576, 1024)
    assert (features - expected).abs().max() < 1e-4 * expected.abs().max()
