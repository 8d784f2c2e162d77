"""Packs of images and text: the same loss and gradients as samples apart, and nothing seen across a border."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mmtune.build import build_parts
from mmtune.build_data import build_dataset, build_reader, packed
from mmtune.cli import main
from mmtune.config import load_config
from mmtune.conversation import IGNORE_INDEX, IMAGE_TOKEN_ID
from mmtune.data.collate import collate
from mmtune.errors import ModelError
from mmtune.models.isolation import require_isolation

PACK = ("data.pack_to_max_length=true", "data.max_length=256", "model.adapter.lora_dropout=0.0")


@pytest.fixture
def built(workspace):
    """Parts that train projector and LoRA, the samples of the dialogues, and packs of them."""
    Path("runs").mkdir()
    assert main(["pretrain", "pretrain.yaml", "train.max_steps=1"]) == 0
    config = load_config("finetune.yaml", list(PACK), "finetune")
    torch.manual_seed(0)
    parts = build_parts(config.model, torch.device("cpu"))
    for name, parameter in parts.model.named_parameters():
        if "lora_B" in name:  # at zero the adapter would be without a say
            torch.nn.init.normal_(parameter, std=0.05)
    dataset, _ = build_dataset(config, build_reader(config.model))
    return parts, dataset, packed(config, dataset)


def loss_and_gradients(model, batches):
    model.zero_grad()
    total = sum(int((batch["labels"] != IGNORE_INDEX).sum()) for batch in batches)
    losses = [model(**batch, num_items_in_batch=total)["loss"] for batch in batches]
    torch.stack(losses).sum().backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return float(sum(loss.detach() for loss in losses)), gradients


def test_packed_equals_separate_in_loss_and_gradients(built):
    parts, samples, packs = built
    kinds = [{bool(samples.num_images[number]) for number in packs.packs[row]} for row in range(len(packs))]
    assert {True, False} in kinds, "a pack of images and text together"
    assert max(len(packs.packs[row]) for row in range(len(packs))) > 2
    apart = [collate([samples[number]]) for number in range(len(samples))]
    together = [collate([packs[row]]) for row in range(len(packs))]
    batched = [collate([packs[row] for row in range(len(packs))])]
    expected = loss_and_gradients(parts.model.train(), apart)
    for batches in (together, batched):
        loss, gradients = loss_and_gradients(parts.model, batches)
        assert loss == pytest.approx(expected[0], rel=1e-5)
        assert gradients.keys() == expected[1].keys()
        assert any("projector" in name for name in gradients)
        assert any("lora" in name for name in gradients)
        for name, value in expected[1].items():
            torch.testing.assert_close(gradients[name], value, rtol=1e-3, atol=1e-6, msg=name)


def test_the_gradient_of_a_sample_with_respect_to_another_is_0(built):
    parts, _, packs = built
    row = max(range(len(packs)), key=lambda number: len(packs.packs[number]))
    batch = collate([packs[row]])
    ids, positions = batch["input_ids"], batch["position_ids"]
    owner = (positions[0] == 0).cumsum(0) - 1
    embeds = parts.model.embed(ids, parts.model.encode_images(batch["pixel_values"])).detach().requires_grad_()
    hidden = parts.model.hidden_states(embeds, positions)
    for sample in range(int(owner.max()) + 1):
        (gradient,) = torch.autograd.grad(hidden[:, owner == sample].square().sum(), embeds, retain_graph=True)
        assert gradient[:, owner == sample].abs().sum() > 0
        assert gradient[:, owner != sample].abs().max() == 0


def test_all_tokens_and_images_of_the_samples_are_in_the_packs(built):
    _, samples, packs = built
    items = [packs[row] for row in range(len(packs))]
    assert sum(len(item["input_ids"]) for item in items) == samples.lengths.sum()
    assert sum(int((item["labels"] != IGNORE_INDEX).sum()) for item in items) == samples.values("num_supervised").sum()
    for item in items:
        num_slots = int((item["input_ids"] == IMAGE_TOKEN_ID).sum())
        assert num_slots == 16 * len(item.get("pixel_values", ()))
        assert (item["labels"][item["position_ids"] == 0] == IGNORE_INDEX).all()


def test_images_stand_in_the_slots_of_their_samples(built):
    """A pack's images are those of its samples, in their order: not those of another pack, nor swapped."""
    _, samples, packs = built
    for row in range(len(packs)):
        numbers = packs.packs[row].tolist()
        expected = [samples[number]["pixel_values"] for number in numbers if samples.num_images[number]]
        if expected:
            assert torch.equal(packs[row]["pixel_values"], torch.cat(expected))


def train(*changes):
    assert main(["finetune", "finetune.yaml", "data.pack_to_max_length=true", *changes]) == 0


def weights(folder):
    folder = Path(folder)
    return load_file(folder / "projector.safetensors") | load_file(folder / "adapter" / "adapter_model.safetensors")


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_packed_run_resumes_bit_for_bit_with_any_number_of_workers(workspace):
    assert main(["pretrain", "pretrain.yaml", "train.max_steps=1"]) == 0
    changes = ("train.per_device_train_batch_size=1", "train.num_train_epochs=3", "train.save_steps=2")
    train("train.output_dir=runs/straight", *changes)
    train("train.output_dir=runs/workers", *changes, "train.dataloader_num_workers=2")
    assert_equal(weights("runs/workers"), weights("runs/straight"))
    Path("runs/again").mkdir()
    Path("runs/straight/checkpoint-2").rename("runs/again/checkpoint-2")
    train("train.output_dir=runs/again", *changes, "--resume")
    assert_equal(weights("runs/again"), weights("runs/straight"))
    facts = json.loads(Path("runs/straight/data.json").read_text())
    assert facts["num_samples"] == facts["num_records"] == 10


def test_a_model_that_lets_samples_leak_is_refused(workspace, monkeypatch):
    config = load_config("pretrain.yaml", [], "pretrain")
    parts = build_parts(config.model, torch.device("cpu"))
    require_isolation(parts.model)
    body = parts.model.base_llm.get_decoder()
    forward = body.forward
    monkeypatch.setattr(body, "forward", lambda **given: forward(**{**given, "position_ids": None}))
    with pytest.raises(ModelError, match="lets packed samples see each other"):
        require_isolation(parts.model)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_samples_are_apart_with_every_kind_of_attention(workspace, attention):
    parts = build_parts(load_config("pretrain.yaml", [], "pretrain").model, torch.device("cpu"))
    parts.model.base_llm.set_attn_implementation(attention)
    require_isolation(parts.model)


def test_long_samples_are_cut_to_a_pack_and_lengths_are_those_of_the_items(built):
    _, _, packs = built
    assert np.array_equal(packs.lengths, [len(packs[row]["input_ids"]) for row in range(len(packs))])
    assert packs.lengths.max() <= 256
