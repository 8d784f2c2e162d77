"""An adapter on the vision encoder: what it covers, what it trains, how it is saved, continued and started from."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from training_workspace import models, trainer_of, workspace
from transformers import CLIPVisionConfig, CLIPVisionModel

from mmtune.build import build_parts, calibrate_projector, load_initial_weights, load_run
from mmtune.build_data import build_dataset, build_reader
from mmtune.cli import main
from mmtune.config import load_config
from mmtune.errors import CheckpointError, ConfigError
from mmtune.models.adapters import attach_vision_adapter
from mmtune.models.vision import load_vision
from mmtune.models.vit_encoders import ClipEncoder
from mmtune.models.weights import held_parts, load_weights, wanted_parts
from mmtune.testing import write_tiny_clip
from mmtune.testing_vision import write_tiny_dinov2, write_tiny_siglip
from mmtune.training.callbacks import read_log

__all__ = ["models", "workspace"]

CPU = torch.device("cpu")
ON = ["model.vision.tune=adapter", "model.vision.adapter={kind: lora, r: 4, lora_alpha: 8, lora_dropout: 0.1}"]
FILE = "vision_adapter/adapter_model.safetensors"


def finetune(*overrides, config="finetune.yaml"):
    return main(["finetune", config, *ON, *overrides])


@pytest.fixture
def pretrained(workspace):
    assert main(["pretrain", "pretrain.yaml"]) == 0
    return workspace


def test_rank_64_on_the_used_blocks_of_vit_l_is_27_million_parameters():
    shape = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
    with torch.device("meta"):
        tower = CLIPVisionModel(CLIPVisionConfig(**shape, image_size=336, patch_size=14))
        encoder = ClipEncoder(tower, -2, {}).requires_grad_(False)
        attach_vision_adapter(encoder, {"kind": "lora", "r": 64, "lora_alpha": 16})
    assert encoder.num_tokens == 576
    assert len(encoder.base_tower.encoder.layers) == 23
    trained = [value.numel() for value in encoder.parameters() if value.requires_grad]
    assert sum(trained) == 27_131_904
    assert len(trained) == 23 * 6 * 2


@pytest.mark.parametrize(
    ("write", "num_linear"), [(write_tiny_clip, 6), (write_tiny_siglip, 6), (write_tiny_dinov2, 6)]
)
def test_an_adapter_covers_every_linear_layer_that_runs_and_gets_gradients(tmp_path, write, num_linear):
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    encoder = load_vision("transformers", str(write(tmp_path)), torch.float32, {})
    encoder.preprocessing["image_size"] = 32
    before = encoder.eval()(images)
    attach_vision_adapter(encoder, {"kind": "lora", "r": 2})
    assert not encoder.is_frozen
    assert torch.equal(encoder.eval()(images), before)  # LoRA's B starts at zero
    features = encoder.train()(images)
    assert features.requires_grad
    assert encoder.base_tower.training
    features.pow(2).sum().backward()
    trained = {name: value.grad for name, value in encoder.named_parameters() if value.requires_grad}
    assert len(trained) == 2 * num_linear * 2  # A and B, two blocks of three
    assert all(bool(grad.any()) for name, grad in trained.items() if "lora_B" in name)
    assert all(value.grad is None for value in encoder.parameters() if not value.requires_grad)
    with torch.no_grad():
        assert not encoder(images).requires_grad
    encoder.requires_grad_(False)
    assert encoder.is_frozen
    assert not encoder.train().training
    assert not encoder(images).requires_grad


def test_encoders_and_values_that_do_not_fit_are_refused(tiny):
    small = load_vision("efficientnet", "efficientnet_lite0", torch.float32, {"image_size": 64})
    with pytest.raises(ConfigError, match=r"model.vision.adapter: this encoder takes no adapter"):
        attach_vision_adapter(small, {"kind": "lora"})
    for options, message in (
        ({"kind": "lora", "rank": 4}, r"model.vision.adapter.rank: lora has no such key. Known: .*lora_alpha"),
        ({"kind": "pissa", "r": 4}, r"model.vision.adapter.kind: 'pissa' needs steps of its own in training"),
        ({"kind": "adalora"}, r"model.vision.adapter.kind: 'adalora' needs steps of its own in training"),
        (
            {"kind": "prompt_tuning"},
            r"'prompt_tuning' puts virtual tokens before text, and a vision encoder",
        ),
        ({"kind": "lorra"}, r"model.vision.adapter.kind: unknown name 'lorra'. Did you mean 'lora'"),
        (
            {"target_modules": ["wqkv"]},
            r"model.vision.adapter.target_modules: no module is called 'wqkv'. Linear layers: fc1, fc2",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            attach_vision_adapter(load_vision("transformers", str(tiny.clip), torch.float32, {}), options)


@pytest.mark.parametrize("change", [ON[:1], ON[1:], [*ON, "model.vision.tune=full"]])
def test_tune_and_adapter_go_together(config_file, data_file, record, capsys, change):
    data_file(record("<image>\nWhat?", "A cat.", image="0.png"))
    assert main(["pretrain", config_file(), *change]) == 2
    assert "'model.vision.adapter' and 'model.vision.tune: adapter' go together" in capsys.readouterr().err


def test_only_adapters_and_projector_change_and_rates_are_by_part(pretrained, tmp_path):
    rates = ["model.vision.learning_rate=1e-3", "model.vision.weight_decay=0.1", "train.output_dir=runs/fit"]
    config = load_config("finetune.yaml", [*ON, *rates, "train.save_steps=0"], "finetune")
    torch.manual_seed(0)
    parts = build_parts(config.model, CPU)
    dataset, _ = build_dataset(config, build_reader(config.model))
    assert load_initial_weights(config.model, parts) == ["projector"]
    before = {name: value.clone() for name, value in parts.model.state_dict().items()}
    trainer = trainer_of(parts, config, dataset)
    groups = {id(value): group for group in trainer.create_optimizer().param_groups for value in group["params"]}
    for name, value in parts.model.named_parameters():
        if value.requires_grad:
            rate = 1e-3 if name.startswith("vision.") else 5e-3
            assert (groups[id(value)]["lr"], name) == (rate, name)
            assert not name.startswith("vision.") or groups[id(value)]["weight_decay"] == 0.1
    assert len(groups) == sum(value.requires_grad for value in parts.model.parameters())
    trainer.train()
    changed = {name for name, value in parts.model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name, value in parts.model.named_parameters() if value.requires_grad}
    assert all(name.startswith("projector.") or "lora_" in name for name in changed)
    assert {name.split(".")[0] for name in changed} == {"vision", "projector", "llm"}


def test_a_run_saves_it_in_pefts_layout_and_answers_with_it(pretrained, capsys):
    assert finetune() == 0
    run = Path("runs/finetune")
    assert held_parts(run) == ["projector", "adapter", "vision_adapter"]
    assert {path.name for path in (run / "vision_adapter").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    assert f"{FILE}" in json.loads((run / "manifest.json").read_text())["files"]
    assert any(value.any() for name, value in load_file(run / FILE).items() if "lora_B" in name)
    images = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    parts = load_run(run, device=CPU)
    assert wanted_parts(parts.model) == held_parts(run)
    base = load_vision("transformers", read_vision_name(run), torch.float32, {}).base_tower
    peft = PeftModel.from_pretrained(base, str(run / "vision_adapter"))  # PEFT alone reads it too
    by_peft = peft.get_base_model()
    embeds = by_peft.pre_layrnorm(by_peft.embeddings(images))
    expected = by_peft.encoder(inputs_embeds=embeds).last_hidden_state[:, 1:]
    assert torch.equal(parts.model.vision(images), expected)
    capsys.readouterr()
    for folder in ("runs/finetune", "runs/finetune/checkpoint-3"):
        assert main(["chat", folder, "--image", "0.png", "--prompt", "What?", "--max-new-tokens", "2"]) == 0
        assert capsys.readouterr().out.strip()


def read_vision_name(run):
    return load_config(run / "config.yaml", [], "finetune").model.vision.name


@pytest.mark.parametrize("step", [3, 6])
def test_resume_equals_straight_bit_for_bit(pretrained, step):
    assert finetune() == 0
    straight, again = Path("runs/finetune"), Path("runs/again")
    shutil.copytree(straight / f"checkpoint-{step}", again / f"checkpoint-{step}")
    shutil.copy(straight / "log.jsonl", again / "log.jsonl")
    assert finetune("train.output_dir=runs/again", "--resume") == 0
    for file in (FILE, "adapter/adapter_model.safetensors", "projector.safetensors"):
        expected, found = load_file(straight / file), load_file(again / file)
        assert expected.keys() == found.keys()
        assert all(torch.equal(found[name], value) for name, value in expected.items())
    losses = [[entry["loss"] for entry in read_log(run / "log.jsonl")] for run in (straight, again)]
    assert losses[0] == losses[1]


def test_a_run_starts_from_one_with_a_vision_adapter_and_from_no_other_kind(pretrained, capsys):
    assert finetune() == 0
    still = ["model.init_from=runs/finetune", "train.learning_rate=1e-30", "train.max_steps=1"]
    assert finetune(*still, "train.output_dir=runs/still") == 0
    before, after = (load_file(f"runs/{name}/{FILE}") for name in ("finetune", "still"))
    assert all(torch.equal(after[name], value) for name, value in before.items())
    capsys.readouterr()
    assert main(["finetune", "finetune.yaml", *still, "train.output_dir=runs/none"]) == 2
    assert "holds a trained vision_adapter that this config has no place for" in capsys.readouterr().err


def test_names_of_the_file_are_compared_both_ways(pretrained, capsys):
    assert finetune("train.max_steps=1") == 0
    tensors = load_file(f"runs/finetune/{FILE}")
    name = sorted(tensors)[0]
    save_file({key: value for key, value in tensors.items() if key != name}, f"runs/finetune/{FILE}")
    config = load_config("finetune.yaml", ON, "finetune")
    parts = build_parts(config.model, CPU)
    with pytest.raises(CheckpointError, match="1 missing"):
        load_weights(parts.model, Path("runs/finetune"))
    save_file(tensors | {"base_model.model.other.lora_A.weight": torch.zeros(2)}, f"runs/finetune/{FILE}")
    with pytest.raises(CheckpointError, match="1 left over"):
        load_weights(parts.model, Path("runs/finetune"))
    save_file(tensors | {name: tensors[name][:2].clone()}, f"runs/finetune/{FILE}")
    with pytest.raises(CheckpointError, match="another rank"):
        load_weights(parts.model, Path("runs/finetune"))


def test_a_fully_tuned_tower_is_saved_and_resumes(pretrained):
    full = ["model.vision.tune=full", "model.vision.learning_rate=1e-3"]
    assert main(["finetune", "finetune.yaml", *full]) == 0
    straight, again = Path("runs/finetune"), Path("runs/again")
    assert held_parts(straight) == ["projector", "adapter", "vision"]
    shutil.copytree(straight / "checkpoint-6", again / "checkpoint-6")
    shutil.copy(straight / "log.jsonl", again / "log.jsonl")
    assert main(["finetune", "finetune.yaml", *full, "train.output_dir=runs/again", "--resume"]) == 0
    expected, found = (load_file(run / "vision.safetensors") for run in (straight, again))
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    fresh = load_vision("transformers", read_vision_name(straight), torch.float32, {}).state_dict()
    assert expected.keys() == fresh.keys()
    assert sum(not torch.equal(value, fresh[name]) for name, value in expected.items()) > 0.9 * len(fresh)


def test_a_batch_without_images_gives_vision_and_projector_zero_gradients(pretrained):
    config = load_config("finetune.yaml", ON, "finetune")
    parts = build_parts(config.model, CPU)
    dataset, _ = build_dataset(config, build_reader(config.model))
    calibrate_projector(config.model, parts, dataset)
    text = dataset.sample(int(np.flatnonzero(dataset.num_images == 0)[0]))
    batch = {key: torch.tensor([getattr(text, key)]) for key in ("input_ids", "labels")}
    parts.model.train()(**batch)["loss"].backward()
    trained = {name: value.grad for name, value in parts.model.named_parameters() if value.requires_grad}
    for name, grad in trained.items():
        assert grad is not None, name
        assert name.startswith("llm.") or not grad.any(), name
