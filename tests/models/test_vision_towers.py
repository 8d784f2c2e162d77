"""Towers of transformers give `hidden_states[k]` of the patches, and the images they were trained on."""

import json

import pytest
import torch
from PIL import Image
from transformers import (
    CLIPVisionModel,
    Dinov2Model,
    Dinov2WithRegistersModel,
    SiglipConfig,
    SiglipModel,
    SiglipVisionModel,
)
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from mmtune.cli import main
from mmtune.data.images import ImageTransform
from mmtune.errors import ModelError
from mmtune.models.vision import load_vision, vision_path
from mmtune.models.vision_towers import CLIP_MEAN, CLIP_STD, HALF, IMAGENET_MEAN, IMAGENET_STD
from mmtune.testing import write_tiny_clip
from mmtune.testing_vision import SHAPE, write_tiny_dinov2, write_tiny_siglip

KINDS = {
    "clip": (CLIPVisionModel, 1),
    "siglip": (SiglipVisionModel, 0),
    "dinov2": (Dinov2Model, 1),
    "dinov2_with_registers": (Dinov2WithRegistersModel, 1 + 3),
}
"""Kind -> class, tokens that are no patches."""


@pytest.fixture(scope="module")
def towers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("towers")
    write_tiny_clip(folder / "clip")
    write_tiny_siglip(folder / "siglip")
    write_tiny_dinov2(folder / "dinov2")
    write_tiny_dinov2(folder / "dinov2_with_registers", num_register_tokens=3)
    for kind in ("dinov2", "dinov2_with_registers"):
        write_preprocessor(folder / kind, crop_size={"height": 32, "width": 32}, size={"shortest_edge": 36})
    return folder


@pytest.fixture(scope="module")
def images():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def write_preprocessor(folder, name="preprocessor_config.json", **values):
    (folder / name).write_text(json.dumps(values))


def load(folder, **options):
    return load_vision("transformers", str(folder), torch.float32, options).eval()


@pytest.mark.parametrize("layer", [-1, -2, 1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_features_are_the_hidden_states_of_the_patches(towers, images, kind, layer):
    model, num_prefix = KINDS[kind]
    tower = model.from_pretrained(towers / kind).eval()
    states = tower(images, output_hidden_states=True).hidden_states
    assert len(states) == 4
    encoder = load(towers / kind, feature_layer=layer)
    features = encoder(images)
    torch.testing.assert_close(features, states[layer][:, num_prefix:], rtol=1e-5, atol=1e-6)
    assert features.shape == (2, 16, 16) == (2, encoder.num_tokens, encoder.hidden_size)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_held_is_what_runs(towers, images, kind):
    encoder = load(towers / kind).requires_grad_(True)
    encoder(images).pow(2).sum().backward()
    assert [name for name, value in encoder.named_parameters() if value.grad is None] == []
    whole = KINDS[kind][0].from_pretrained(towers / kind)
    assert sum(value.numel() for value in encoder.parameters()) < sum(value.numel() for value in whole.parameters())


def test_dinov2_takes_other_image_sizes_as_transformers_does(towers):
    images = torch.randn(1, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    tower = Dinov2Model.from_pretrained(towers / "dinov2").eval()
    encoder = load(towers / "dinov2", image_size=48)
    assert encoder.num_tokens == 36
    assert encoder.preprocessing["image_size"] == 48
    expected = tower(images, output_hidden_states=True).hidden_states[-2][:, 1:]
    torch.testing.assert_close(encoder(images), expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ModelError, match="takes 32 pixels only"):
        load(towers / "clip", image_size=48)


def test_the_tower_inside_a_whole_model_is_read(tmp_path, images):
    """What the hub has as `siglip`, SigLIP 2 of fixed size among it, holds a text side too."""
    text = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    model = SiglipModel(SiglipConfig(vision_config=SHAPE | {"intermediate_size": 32}, text_config=text)).eval()
    model.save_pretrained(tmp_path)
    expected = model.vision_model(images, output_hidden_states=True).hidden_states[-2]
    torch.testing.assert_close(load(tmp_path)(images), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "size", "mean", "std"),
    [
        ("clip", 32, CLIP_MEAN, CLIP_STD),
        ("siglip", 32, HALF, HALF),
        ("dinov2", 224, IMAGENET_MEAN, IMAGENET_STD),
    ],
)
def test_a_family_has_its_own_preprocessing_where_the_folder_has_none(tmp_path, kind, size, mean, std):
    {"clip": write_tiny_clip, "siglip": write_tiny_siglip, "dinov2": write_tiny_dinov2}[kind](tmp_path)
    expected = {"image_size": size, "mean": mean, "std": std, "resample": "bicubic"}
    assert load(tmp_path).preprocessing == expected


@pytest.mark.parametrize("name", ["preprocessor_config.json", "processor_config.json"])
def test_the_preprocessing_of_the_folder_counts(tmp_path, name):
    write_tiny_dinov2(tmp_path)
    stored = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "resample": 2, "size": {"shortest_edge": 40}}
    stored |= {"crop_size": {"height": 32, "width": 32}}
    inner = stored if name == "preprocessor_config.json" else {"image_processor": stored}
    write_preprocessor(tmp_path, name, **inner)
    expected = {"image_size": 32, "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "resample": "bilinear"}
    assert load(tmp_path).preprocessing == expected
    if name == "preprocessor_config.json":
        write_preprocessor(tmp_path, **stored | {"do_center_crop": False})
        assert load(tmp_path).preprocessing["image_size"] == 40


def test_a_square_image_becomes_the_pixels_of_the_folders_own_processor(tmp_path):
    write_tiny_siglip(tmp_path)
    processor = SiglipImageProcessorPil(size={"height": 32, "width": 32}, resample=2)
    processor.save_pretrained(tmp_path)
    noise = torch.randint(0, 256, (50, 50, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    image = Image.fromarray(noise.numpy())
    ours = ImageTransform(**load(tmp_path).preprocessing)(image)
    torch.testing.assert_close(ours, processor(image, return_tensors="pt").pixel_values[0], rtol=0, atol=1e-5)


def test_what_the_preprocessor_asks_for_is_done_or_refused(tmp_path):
    write_tiny_siglip(tmp_path)
    write_preprocessor(tmp_path, resample=1)
    with pytest.raises(ModelError, match="resample 1 is not done here"):
        load(tmp_path)
    write_preprocessor(tmp_path, size={"height": 32, "width": 48})
    with pytest.raises(ModelError, match="not square"):
        load(tmp_path)
    write_preprocessor(tmp_path, do_normalize=False)
    assert load(tmp_path).preprocessing["mean"] == (0.0, 0.0, 0.0)


def test_folders_that_hold_no_tower_are_refused(tmp_path, towers):
    with pytest.raises(ModelError, match=r"is no folder \(resolved to .*\) and no hub name"):
        load(tmp_path / "absent.d")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises(ModelError, match=r"model_type 'vit' is no vision tower.*clip, clip_vision_model, siglip"):
        load(tmp_path)
    (tmp_path / "config.json").write_text((towers / "clip/config.json").read_text())
    with pytest.raises(ModelError, match="no CLIPVisionModel can be read"):
        load(tmp_path)
    with pytest.raises(ModelError, match="is not a layer of this tower of 3 blocks"):
        load(towers / "siglip", feature_layer=4)


def test_a_folder_that_lacks_weights_is_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    write_tiny_clip(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    name = next(name for name in weights if "layers.1.mlp.fc1.weight" in name)
    save_file({key: value for key, value in weights.items() if key != name}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="misses 1 weights"):
        load(tmp_path)


def test_a_hub_name_is_looked_up_in_the_hub_of_the_config(towers, tmp_path, monkeypatch):
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    repository = tmp_path / "models--somebody--tower"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text("0" * 40)
    (repository / "snapshots").mkdir()
    (repository / "snapshots" / ("0" * 40)).symlink_to(towers / "siglip")
    assert load("somebody/tower").num_tokens == 16
    assert vision_path("transformers", "somebody/tower", None).resolve() == towers / "siglip"
    with pytest.raises(ModelError, match="huggingface did not give it"):
        load("somebody/else")
    with pytest.raises(ModelError, match="modelscope"):
        load_vision("transformers", "somebody/tower", torch.float32, {}, "modelscope")


@pytest.mark.parametrize("kind", ["siglip", "dinov2_with_registers"])
def test_a_tower_trains_and_answers_through_the_command_line(towers, kind, config_file, data_file, record, capsys):
    data_file(record("<image>\nWhat?", "A cat.", image="0.png"))
    config = config_file(f"model.vision.name={towers / kind}", "model.vision.tune=full")
    assert main(["pretrain", config]) == 0
    capsys.readouterr()
    assert main(["chat", "run", "--image", "0.png", "--prompt", "What?", "--max-new-tokens", "2"]) == 0
    assert capsys.readouterr().out.strip()
