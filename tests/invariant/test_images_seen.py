"""A photograph large enough to be decoded at a reduced size is the same pixels in training, chat and comparison."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from prepared_data import prepare

from mmtune.build import build_parts
from mmtune.chat.generate import Decoding, embed_images
from mmtune.chat.session import ChatSession
from mmtune.config import load_config
from mmtune.evaluate.asking import Asker

__all__ = ["prepare"]


@pytest.fixture
def parts(workspace):
    parts = build_parts(load_config("pretrain.yaml", [], "pretrain").model, torch.device("cpu"))
    parts.model.eval()
    pixels = np.random.default_rng(0).integers(0, 256, (400, 600, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("photo.jpg")
    return parts


@pytest.fixture
def expected(parts):
    """The embeddings of what the transform opens, which is not what a full decode gives."""
    opened = parts.transform.open("photo.jpg")
    with Image.open("photo.jpg") as image:
        assert not torch.equal(opened, parts.transform(image.convert("RGB")))
    return embed_images(parts, opened[None])


def test_chat_and_comparison_see_the_same(parts, expected):
    assert torch.equal(ChatSession(parts).embed(("photo.jpg",)), expected)
    (compared,) = Asker(parts, Decoding(), 1)._image_embeds([("photo.jpg",)])
    assert torch.equal(compared[0], expected[0])


def test_training_sees_the_same(prepare, parts, expected):
    talk = [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "A photo."}]
    Path("data.json").write_text(json.dumps([{"image": "photo.jpg", "conversations": talk}]))
    dataset, _ = prepare("data.json")
    dataset.transform = parts.transform
    assert torch.equal(embed_images(parts, dataset.pixel_values(0)), expected)
