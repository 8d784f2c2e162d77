"""Optimizers and schedules by name: each trains and resumes bit for bit; what is wrong with one is one line."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training_workspace import trainer_of

from mmtune.build import build_parts
from mmtune.build_data import build_dataset, build_reader
from mmtune.cli import main
from mmtune.config import load_config
from mmtune.testing import write_tiny_llm
from mmtune.training.callbacks import read_log

SFT = ("model.init_from=null", "train.gradient_accumulation_steps=1", "train.learning_rate=1e-3")
FULL = ("model.llm.tune=full", "model.adapter=null", *SFT)
WIDE = ("model.llm.name_or_path=wide_llm", "model.adapter.r=32", *SFT)
"""With an adapter of rank 32 on width 128: 8-bit optimizers keep the states of smaller weights in 32 bit."""

LOW_RANK = ("train.optim_args={rank: 4, update_proj_gap: 2}", "train.optim_target_modules=[q_proj, mlp]")


def needs(package):
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f"{package} is not installed")


def run(config, *changes):
    return main(["sft" if config == "finetune" else config, f"{config}.yaml", *changes])


def straight_and_resumed(config, *changes):
    """Train, resume a copy from its middle, return both runs' weights."""
    assert run(config, "train.output_dir=runs/straight", *changes) == 0
    shutil.copytree("runs/straight/checkpoint-6", "runs/again/checkpoint-6")
    assert run(config, "train.output_dir=runs/again", *changes, "--resume") == 0
    found = [*Path("runs/straight").glob("*.safetensors"), *Path("runs/straight").glob("adapter/*.safetensors")]
    files = [path.relative_to("runs/straight") for path in found]
    return [
        {f"{file}:{key}": value for file in files for key, value in load_file(Path("runs", name, file)).items()}
        for name in ("straight", "again")
    ]


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("adamw", "adamw_torch_fused"),
        ("adamw_torch_fused", "adamw_torch_fused"),
        ("adamw_torch", "adamw_torch"),
        ("adamw_8bit", "adamw_8bit"),
        ("paged_adamw_8bit", "paged_adamw_8bit"),
        ("lion", "lion_32bit"),
        ("lion_8bit", "lion_8bit"),
        ("adafactor", "adafactor"),
    ],
)
def test_every_optimizer_learns_and_resumes_bit_for_bit(workspace, name, taken):
    write_tiny_llm("wide_llm", hidden_size=128, intermediate_size=256)
    straight, again = straight_and_resumed("finetune", f"train.optim={name}", *WIDE)
    assert any("lora_B" in key for key in straight)
    assert all(torch.equal(again[key], value) for key, value in straight.items())
    losses = [entry["loss"] for entry in read_log(Path("runs/straight/log.jsonl"))]
    assert losses[-1] < losses[0]
    states = load_file("runs/straight/checkpoint-6/state/optimizer.safetensors")
    assert any(value.dtype == torch.uint8 for value in states.values()) == ("8bit" in taken)


@pytest.mark.parametrize(
    ("name", "package", "changes"),
    [
        ("galore_adamw", "galore_torch", ()),
        ("galore_adamw", "galore_torch", ("train.optim_args={rank: 4, update_proj_gap: 4, proj_type: full}",)),
        ("galore_adafactor", "galore_torch", ()),
        ("apollo_adamw", "apollo_torch", ()),
        ("apollo_adamw", "apollo_torch", ("train.optim_args={rank: 2, proj: svd, scale_type: tensor}",)),
    ],
)
def test_low_rank_optimizers_learn_and_resume_bit_for_bit(workspace, name, package, changes):
    """The projection of a weight is kept between its updates, over a resume too."""
    pytest.importorskip(package)
    straight, again = straight_and_resumed("finetune", f"train.optim={name}", *FULL, *LOW_RANK, *changes)
    assert any("q_proj" in key for key in straight)
    assert all(torch.equal(again[key], value) for key, value in straight.items())
    losses = [entry["loss"] for entry in read_log(Path("runs/straight/log.jsonl"))]
    assert losses[-1] < losses[0]
    assert not list(Path("runs/straight").rglob("*.pt"))
    slots = json.loads(Path("runs/straight/checkpoint-6/state/optimizer.json").read_text())["slots"]
    assert sum("projector" in values for values in slots.values()) == 8  # q, gate, up, down of two blocks


@pytest.mark.parametrize(("name", "package"), [("galore_adamw", "galore_torch"), ("apollo_adamw", "apollo_torch")])
def test_low_rank_states_are_small_and_other_weights_keep_their_groups(workspace, name, package):
    pytest.importorskip(package)
    changes = [f"train.optim={name}", *FULL, *LOW_RANK, "model.projector.learning_rate=1e-4", "train.adam_beta2=0.95"]
    config = load_config("finetune.yaml", changes, "sft")
    parts = build_parts(config.model, torch.device("cpu"))
    dataset, _ = build_dataset(config, build_reader(config.model))
    trainer = trainer_of(parts, config, dataset)
    optimizer = trainer.create_optimizer()
    names = {id(value): key for key, value in parts.model.named_parameters()}
    grouped = [{names[id(value)] for value in group["params"]} for group in optimizer.param_groups]
    trained = {key for key, value in parts.model.named_parameters() if value.requires_grad}
    assert sum(map(len, grouped)) == len(trained)
    assert set().union(*grouped) == trained
    for members, group in zip(grouped, optimizer.param_groups, strict=True):
        is_low_rank = {("q_proj" in key or ".mlp." in key) and key.endswith("weight") for key in members}
        assert is_low_rank == {"rank" in group}
        assert group["lr"] == (1e-4 if all(key.startswith("projector.") for key in members) else 1e-3)
        assert tuple(group["betas"]) == (0.9, 0.95)
    trainer.train()
    sizes = {names[id(value)]: state["exp_avg"].numel() for value, state in optimizer.state.items()}
    assert sizes["llm.model.layers.0.mlp.up_proj.weight"] == 64 * 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["train.optim=adamww"], "train.optim: unknown name 'adamww'. Did you mean 'adamw'?"),
        (
            ["train.optim=galore_adamw_layerwise", "train.optim_target_modules=[q_proj]"],
            "unknown name 'galore_adamw_layerwise'. Did you mean 'galore_adamw'?",
        ),
        (["train.optim=galore"], "'train.optim: galore' needs 'train.optim_target_modules'"),
        (["train.optim_target_modules=[q_proj]"], "is for GaLore and APOLLO (got train.optim: adamw_torch_fused)"),
        (["train.optim_args={rank: 3}"], "train.optim_args.rank: adamw_torch_fused reads no such key. It reads none."),
        (["train.optim=schedule_free_adamw"], "schedulefree"),
        (["train.lr_scheduler_type=cosin"], "unknown name 'cosin'. Did you mean 'cosine'?"),
        (["train.lr_scheduler_type=greedy"], "train.lr_scheduler_type: unknown name 'greedy'"),
        (["train.lr_scheduler_kwargs={min_lr: 1e-5}"], "train.lr_scheduler_kwargs.min_lr: cosine has no such key."),
        (
            ["train.lr_scheduler_type=cosine_with_min_lr", "train.lr_scheduler_kwargs={min_lr_rat: 0.1}"],
            "train.lr_scheduler_kwargs.min_lr_rat: cosine_with_min_lr has no such key. Did you mean 'min_lr_rate'?",
        ),
        (["train.lr_scheduler_type=cosine_with_min_lr"], "train.lr_scheduler_kwargs: cosine_with_min_lr refuses this:"),
        (["train.lr_scheduler_type=warmup_stable_decay"], "train.lr_scheduler_kwargs: warmup_stable_decay refuses"),
        (["train.lr_scheduler_type=constant", "train.lr_scheduler_kwargs={a: 1}"], "constant has no such key."),
    ],
)
def test_what_is_wrong_is_one_line_before_a_model_loads(workspace, capsys, changes, message):
    assert run("pretrain", *changes) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.parametrize("package", ["galore_torch", "apollo_torch"])
def test_a_missing_package_is_named(workspace, capsys, monkeypatch, package):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    name = package.removesuffix("_torch")
    assert run("pretrain", f"train.optim={name}", "train.optim_target_modules=[q_proj]") == 2
    told = f"mmtune: train.optim: {name}_adamw needs {package}. Run: pip install 'mmtune[{name}]'\n"
    assert capsys.readouterr().err == told


@needs("galore_torch")
def test_target_modules_that_match_nothing_trained_are_refused(workspace, capsys):
    assert run("pretrain", "train.optim=galore", "train.optim_target_modules=[q_proj]") == 2
    assert "no linear layer that trains has '['q_proj']' in its name" in capsys.readouterr().err


def test_a_schedule_ends_where_its_keys_say(workspace):
    changes = ["train.lr_scheduler_type=cosine_with_min_lr", "train.lr_scheduler_kwargs={min_lr_rate: 0.25}"]
    straight, again = straight_and_resumed("pretrain", *changes, "train.learning_rate=1e-3", "train.warmup_ratio=0")
    rates = [entry["learning_rate"] for entry in read_log(Path("runs/straight/log.jsonl"))]
    assert rates[0] == pytest.approx(1e-3)
    assert rates == sorted(rates, reverse=True)
    assert 2.5e-4 < rates[-1] < 3e-4
    assert all(torch.equal(again[key], value) for key, value in straight.items())
