"""Encoders give the features they promise, and a frozen one is the same after training."""

import pytest
import torch
from transformers import CLIPVisionModel

from mmtune.errors import ConfigError, ModelError
from mmtune.models.efficientnet import NUM_GRID_CHANNELS
from mmtune.models.vision import VISION_ENCODERS, load_vision


@pytest.fixture(scope="module")
def pixels():
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_clip_features_are_hidden_states_minus_2_without_cls_and_post_norm(tiny):
    tower = CLIPVisionModel.from_pretrained(tiny.clip)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = tower(images, output_hidden_states=True).hidden_states[-2][:, 1:]
    encoder = load_vision("transformers", str(tiny.clip), torch.float32, {}).eval()
    torch.testing.assert_close(encoder(images), expected)
    assert len(encoder.tower.encoder.layers) == tower.config.num_hidden_layers - 1
    assert encoder(images).shape == (2, encoder.num_tokens, encoder.hidden_size)


def test_efficientnet_gives_a_grid_of_features(pixels):
    encoder = load_vision("efficientnet", "efficientnet_lite0", torch.float32, {"grid": 3, "image_size": 64})
    features = encoder(pixels)
    assert features.shape == (2, 9, NUM_GRID_CHANNELS) == (2, encoder.num_tokens, encoder.hidden_size)
    assert not features.requires_grad


def test_a_frozen_encoder_with_batch_norm_is_the_same_in_training_and_evaluation(pixels):
    encoder = load_vision("efficientnet", "efficientnet_lite0", torch.float32, {"grid": 2, "image_size": 64})
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    evaluated = encoder.eval()(pixels)
    trained = torch.nn.ModuleList([encoder]).train()[0](pixels)
    assert torch.equal(trained, evaluated)
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


def test_options_that_a_source_does_not_take_are_refused(tiny):
    with pytest.raises(ConfigError, match="has no such key"):
        load_vision("transformers", str(tiny.clip), torch.float32, {"grid": 3})
    with pytest.raises(ConfigError, match="Did you mean 'transformers'"):
        load_vision("transformer", str(tiny.clip), torch.float32, {})
    with pytest.raises(ModelError, match="is not a layer of this tower"):
        load_vision("transformers", str(tiny.clip), torch.float32, {"feature_layer": -9})


@pytest.mark.slow
def test_efficientnet_sees_a_cat():
    """ImageNet class 285 is the Egyptian cat; the picture comes with scikit-image."""
    data = pytest.importorskip("skimage.data", reason="scikit-image is not installed")
    from PIL import Image

    from mmtune.data.images import ImageTransform
    from mmtune.models.efficientnet import EfficientNetLite0, efficientnet_lite0_path

    assert "efficientnet" in VISION_ENCODERS
    transform = ImageTransform(224, (127 / 255,) * 3, (128 / 255,) * 3)
    image = Image.fromarray(data.cat()).crop((75, 0, 375, 300))
    logits = EfficientNetLite0.from_file(efficientnet_lite0_path())(transform(image)[None])
    assert int(logits.argmax()) == 285
