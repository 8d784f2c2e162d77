"""A run that is measured and asked while it trains ends with the very weights of one that is not; so does a resume."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mmtune.cli import main
from mmtune.training.callbacks import read_log

WATCHED = (
    "data.validation=[{path: captions.json}]",
    "train.eval_steps=2",
    "train.metric_for_best_model=eval_token_accuracy",
    "sample={questions: [What colour?, {question: Hi}], images: [0.png], every_steps: 2, max_new_tokens: 4}",
)
ADALORA = "model.adapter={kind: adalora, init_r: 6, target_r: 3, tinit: 1, tfinal: 1, deltaT: 1, lora_alpha: 8}"
UNFREEZING = ("model.llm.tune={top_layers: 2, unfreeze_every_steps: 2}", "model.adapter=null")


OTHERS = (
    ("data.padding_free=false", "train.fused_lora=false"),
    ("data.pack_to_max_length=true", "train.num_train_epochs=5"),
    ("model.llm.dtype=bfloat16",),
    ("model.llm.quantization=int8",),
    ("model.adapter={kind: prefix_tuning, num_virtual_tokens: 4}",),
    ("model.adapter={kind: prompt_tuning, num_virtual_tokens: 4}",),
)


def train(name, *changes, verb="finetune"):
    assert main([verb, f"{verb}.yaml", f"train.output_dir=runs/{name}", "train.save_steps=5", *changes]) == 0
    return Path("runs", name)


def tensors(folder):
    paths = [path for path in folder.rglob("*.safetensors") if "checkpoint-" not in str(path)]
    return {f"{path.relative_to(folder)}:{key}": value for path in paths for key, value in load_file(path).items()}


def assert_same(folder, other):
    found, expected = tensors(folder), tensors(other)
    assert found.keys() == expected.keys()
    assert found
    assert [key for key, value in expected.items() if not torch.equal(found[key], value)] == []


def losses(folder):
    return [entry["loss"] for entry in read_log(folder / "log.jsonl") if "loss" in entry]


@pytest.fixture
def pretrained(workspace):
    assert main(["pretrain", "pretrain.yaml", "train.max_steps=1", "train.save_steps=0"]) == 0


@pytest.mark.parametrize(
    "changes",
    [
        (),
        ("train.neftune_noise_alpha=5", "train.dataloader_num_workers=2"),
        (ADALORA,),
        UNFREEZING,
        ("data.cache_vision_features=true", "train.gradient_checkpointing=true"),
        *(pytest.param(changes, marks=pytest.mark.slow) for changes in OTHERS),
    ],
    ids=" ".join,
)
def test_watching_changes_no_weight(pretrained, changes):
    unwatched, watched = train("unwatched", *changes), train("watched", *changes, *WATCHED)
    assert_same(watched, unwatched)
    assert losses(watched) == losses(unwatched)
    assert [entry for entry in read_log(watched / "log.jsonl") if "eval_loss" in entry]


def test_watching_changes_no_weight_of_a_pretraining(workspace):
    unwatched = train("unwatched", verb="pretrain")
    assert_same(train("watched", *WATCHED, verb="pretrain"), unwatched)


@pytest.mark.parametrize("step", [5, 8])
def test_a_resumed_run_is_watched_as_a_straight_one(pretrained, step):
    stopping = ("train.early_stopping_patience=3", "train.save_total_limit=null", "train.load_best_model_at_end=true")
    changes = (*WATCHED, *stopping, "train.metric_for_best_model=grad_norm", "train.save_steps=1")
    straight = train("straight", *changes)
    again = Path("runs/again")
    for number in range(1, step + 1):
        shutil.copytree(straight / f"checkpoint-{number}", again / f"checkpoint-{number}")
    for name in ("log.jsonl", "samples.jsonl", "samples.md", "best.json"):  # as a killed run leaves them: further on
        shutil.copy(straight / name, again / name)
    train("again", *changes, "--resume")
    assert_same(again, straight)
    for name in ("samples.jsonl", "samples.md", "best.json"):
        assert (again / name).read_text() == (straight / name).read_text()
    for folder in (straight, again):
        steps = [entry["step"] for entry in read_log(folder / "log.jsonl") if "eval_loss" in entry]
        assert steps == sorted(set(steps))
    assert losses(again) == losses(straight)
    facts = [json.loads((folder / "manifest.json").read_text()) for folder in (straight, again)]
    assert [facts[0][key] for key in ("steps", "best")] == [facts[1][key] for key in ("steps", "best")]


def test_a_run_that_had_stopped_early_does_not_train_on(pretrained):
    changes = (*WATCHED, "train.early_stopping_patience=1", "train.early_stopping_threshold=9", "train.save_steps=2")
    straight = train("straight", *changes)
    assert json.loads((straight / "manifest.json").read_text())["steps"] == 4
    shutil.copytree(straight, "runs/again")
    Path("runs/again/manifest.json").unlink()
    again = train("again", *changes, "--resume")
    assert json.loads((again / "manifest.json").read_text())["steps"] == 4
    assert_same(again, straight)
    assert losses(again) == losses(straight)
