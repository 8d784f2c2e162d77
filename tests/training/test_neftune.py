"""Noise on text embeddings: as large as each sample's length says, in training alone, the same after a resume."""

import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from mmtune.cli import main
from mmtune.conversation import IMAGE_TOKEN_ID
from mmtune.data.collate import collate, collate_joined
from mmtune.models.neftune import add_noise
from mmtune.models.vlm import VisionLanguageModel

WIDTH, ALPHA = 64, 5.0
LENGTHS = (400, 25, 100)


def items(*lengths):
    return [{"input_ids": torch.arange(n) % 50, "labels": torch.arange(n) % 50} for n in lengths]


def pack(*lengths):
    parts = items(*lengths)
    row = {name: torch.cat([item[name] for item in parts]) for name in ("input_ids", "labels")}
    return row | {"position_ids": torch.cat([torch.arange(n) for n in lengths])}


def noise_of(batch, is_text=None):
    ids = batch["input_ids"]
    is_text = torch.ones_like(ids, dtype=torch.bool) if is_text is None else is_text
    lengths = None if "position_ids" in batch else batch["sample_lengths"]
    return add_noise(torch.zeros(*ids.shape, WIDTH), is_text, ALPHA, batch.get("position_ids"), lengths)


def assert_bounds(noise, length):
    """Uniform within the bound: none beyond it, the largest near it, the mean square a third of its square."""
    bound = ALPHA / math.sqrt(length * WIDTH)
    assert noise.abs().max() <= bound
    assert noise.abs().max() > 0.99 * bound
    assert noise.pow(2).mean().item() == pytest.approx(bound**2 / 3, rel=0.06)


def test_each_sample_of_a_joined_row_has_the_noise_of_its_own_length():
    noise = noise_of(collate_joined(items(*LENGTHS)))[0]
    for part, length in zip(noise.split(LENGTHS), LENGTHS, strict=True):
        assert_bounds(part, length)


def test_packs_are_no_longer_samples_joined_or_padded():
    joined = noise_of(collate_joined([pack(400, 25), pack(100)]))[0]
    for part, length in zip(joined.split(LENGTHS), LENGTHS, strict=True):
        assert_bounds(part, length)
    padded = noise_of(collate([pack(400, 25), pack(100)]))
    for part, length in ((padded[0, :400], 400), (padded[0, 400:425], 25), (padded[1, :100], 100)):
        assert_bounds(part, length)


def test_padding_does_not_count():
    noise = noise_of(collate(items(*LENGTHS)))
    for row, length in zip(noise, LENGTHS, strict=True):
        assert_bounds(row[:length], length)


def test_images_get_no_noise_but_count_as_length():
    batch = collate_joined(items(400))
    is_text = torch.arange(400)[None] >= 300
    noise = noise_of(batch, is_text)[0]
    assert not noise[:300].any()
    assert_bounds(noise[300:], 400)


@pytest.fixture
def model():
    shape = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
    model = VisionLanguageModel(LlamaForCausalLM(LlamaConfig(**shape, num_attention_heads=4)))
    model.neftune_noise_alpha = ALPHA
    return model


def test_only_training_is_noisy(model):
    batch = collate(items(20, 30))
    noisy = [model.train()(**batch)["loss"] for _ in range(2)]
    quiet = [model.eval()(**batch)["loss"] for _ in range(2)]
    assert noisy[0] != noisy[1]
    assert quiet[0] == quiet[1]
    ids = torch.tensor([[3, 4, 5]])
    model.train()
    assert torch.equal(model.embed(ids), model.base_llm.get_input_embeddings()(ids))  # what chat asks for


def test_image_slots_of_a_batch_reach_the_model_as_they_are(model, monkeypatch):
    seen = {}
    monkeypatch.setattr(model, "hidden_states", lambda embeds, *_: seen.setdefault("embeds", embeds))
    monkeypatch.setattr(model, "encode_images", lambda pixels: pixels)
    ids = torch.tensor([[1, IMAGE_TOKEN_ID, IMAGE_TOKEN_ID, 2]])
    image = torch.ones(1, 2, 32)
    model.train()(ids, torch.tensor([[-100, -100, -100, 2]]), pixel_values=image)
    clean = model.embed(ids, image)
    differs = (seen["embeds"] != clean).any(-1)[0]
    assert differs.tolist() == [True, False, False, True]


@pytest.mark.parametrize("rows", ["data.padding_free=true", "data.padding_free=false", "data.pack_to_max_length=true"])
def test_a_noisy_run_differs_and_resumes_bit_for_bit(workspace, rows):
    noise = ["train.neftune_noise_alpha=5", rows, "train.num_train_epochs=4", "train.save_steps=2"]
    assert main(["pretrain", "pretrain.yaml", *noise]) == 0
    again = ["train.output_dir=runs/again", "--resume"]
    shutil.copytree("runs/pretrain/checkpoint-2", "runs/again/checkpoint-2")
    assert main(["pretrain", "pretrain.yaml", *noise, *again]) == 0
    plain = [*noise, "train.neftune_noise_alpha=null", "train.output_dir=runs/plain"]
    assert main(["pretrain", "pretrain.yaml", *plain]) == 0
    weights = {name: load_file(Path("runs", name, "projector.safetensors")) for name in ("pretrain", "again", "plain")}
    assert all(torch.equal(weights["again"][key], value) for key, value in weights["pretrain"].items())
    assert any(not torch.equal(weights["plain"][key], value) for key, value in weights["pretrain"].items())


@pytest.mark.parametrize("change", ["train.neftune_noise_alpha=-1", "train.label_smoothing_factor=1"])
def test_wrong_values_are_one_line(workspace, capsys, change):
    assert main(["pretrain", "pretrain.yaml", change]) == 2
    assert f"'{change.partition('=')[0]}' must be" in capsys.readouterr().err
