"""The best checkpoint is the best one, is kept, and early stopping stops."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training_workspace import make

from mmtune.cli import main
from mmtune.training.callbacks import read_log
from mmtune.training.checkpoints import checkpoints_to_delete

HELD = "data.validation=[{path: other.json}]"
FAST = ("train.max_steps=16", "train.eval_steps=1", "train.learning_rate=0.3", "train.lr_scheduler_type=constant")


@pytest.fixture(autouse=True)
def other(workspace):
    """Answers unlike those that are trained: what is learned is soon wrong for them."""
    records = json.loads(Path("captions.json").read_text())
    for record in records:
        record["conversations"][1]["value"] = "XYZ JKW QVB 0123456789 ZZZ"
    Path("other.json").write_text(json.dumps(records))


def facts(folder, name="manifest.json"):
    return json.loads((folder / name).read_text())


def metric_by_step(folder, name):
    return {entry["step"]: entry[name] for entry in read_log(folder / "log.jsonl") if name in entry}


def projector(folder):
    return load_file(folder / "projector.safetensors")


@pytest.mark.parametrize(
    ("metric", "choose"),
    [("eval_loss", min), ("eval_token_accuracy", max), ("train_loss", min), ("grad_norm", min)],
)
def test_the_run_folder_holds_the_best_weights(workspace, metric, choose):
    best = (f"train.metric_for_best_model={metric}", "train.load_best_model_at_end=true", "train.save_total_limit=2")
    folder = make("run", HELD, *FAST, *best, verb="pretrain")
    values = metric_by_step(folder, metric)
    step = next(number for number, value in values.items() if value == choose(values.values()))
    assert facts(folder, "best.json") == {
        "metric": metric,
        "value": pytest.approx(values[step]),
        "step": step,
        "checkpoint": f"checkpoint-{step}",
    }
    assert facts(folder)["weights_of_step"] == facts(folder)["best"]["step"] == step
    kept = projector(folder / f"checkpoint-{step}")
    assert all(torch.equal(value, kept[name]) for name, value in projector(folder).items())
    assert len(list(folder.glob("checkpoint-*"))) <= 2


def test_without_loading_the_run_folder_holds_the_last_weights(workspace):
    changes = ("train.metric_for_best_model=eval_loss", "train.save_steps=1", "train.save_total_limit=1")
    folder = make("run", HELD, *FAST, *changes, verb="pretrain")
    best = facts(folder, "best.json")["step"]
    assert best < 16
    assert sorted(path.name for path in folder.glob("checkpoint-*")) == [f"checkpoint-{best}", "checkpoint-16"]
    last = projector(folder / "checkpoint-16")
    assert all(torch.equal(value, last[name]) for name, value in projector(folder).items())
    assert facts(folder)["weights_of_step"] == 16


def test_training_stops_after_patience_evaluations_without_a_better_one(workspace, capsys):
    steps = ("train.max_steps=40", "train.eval_steps=2")
    changes = (HELD, *FAST, *steps, "train.early_stopping_patience=2")
    folder = make("run", *changes, verb="pretrain")
    values = metric_by_step(folder, "eval_loss")
    best = min(values, key=values.get)
    assert facts(folder)["steps"] == max(values) == best + 2 * 2 < 40
    assert f"stopped early at step {best + 4}: eval_loss was" in capsys.readouterr().err


def test_a_run_is_judged_by_training_figures_without_held_out_data(workspace):
    stop = ("train.early_stopping_patience=1", "train.metric_for_best_model=grad_norm", "train.greater_is_better=true")
    folder = make("run", *FAST, *stop, "train.early_stopping_threshold=100", verb="pretrain")
    assert facts(folder)["steps"] == 2
    assert facts(folder, "best.json")["metric"] == "grad_norm"


@pytest.mark.parametrize(
    "changes",
    [
        (),
        ("model.adapter={kind: adalora, init_r: 6, target_r: 3, tinit: 1, tfinal: 1, deltaT: 1, lora_alpha: 8}",),
        ("model.llm.tune={top_layers: 2, unfreeze_every_steps: 2}", "model.adapter=null"),
    ],
    ids=" ".join,
)
def test_all_that_trains_is_that_of_the_best_step(workspace, changes):
    make("start", verb="pretrain")
    best = ("train.load_best_model_at_end=true", "train.save_total_limit=null", "model.init_from=runs/start")
    folder = make("run", HELD, *FAST, *best, "train.learning_rate=0.1", "train.save_steps=16", *changes)
    step = facts(folder, "best.json")["step"]
    assert step < 16
    kept, last, held = (trained(path) for path in (folder / f"checkpoint-{step}", folder / "checkpoint-16", folder))
    assert held.keys() == kept.keys()
    assert all(torch.equal(value, kept[name]) for name, value in held.items())
    assert not all(torch.equal(value, last[name]) for name, value in held.items())


def trained(folder):
    skipped = ("checkpoint-", "state") if (folder / "loss.png").exists() else ("state",)
    paths = [
        path for path in folder.rglob("*.safetensors") if not path.relative_to(folder).parts[0].startswith(skipped)
    ]
    return {f"{path.relative_to(folder)}:{key}": value for path in paths for key, value in load_file(path).items()}


def test_a_best_checkpoint_that_is_gone_is_said_before_training_goes_on(workspace, capsys):
    best = ("train.load_best_model_at_end=true", "train.save_total_limit=null")
    folder = make("run", HELD, *FAST, *best, "train.save_steps=1", verb="pretrain")
    step = facts(folder, "best.json")["step"]
    assert step < 16
    Path(folder, "manifest.json").unlink()
    shutil.rmtree(folder / f"checkpoint-{step}")
    changes = [HELD, *FAST, *best, "train.save_steps=1", "train.output_dir=runs/run"]
    assert main(["pretrain", "pretrain.yaml", *changes, "--resume"]) == 2
    assert f"checkpoint-{step}: is the best checkpoint of this run by eval_loss" in capsys.readouterr().err


def test_the_oldest_go_but_the_best():
    folders = [Path(f"checkpoint-{step}") for step in (10, 20, 30, 40)]
    ten, twenty, thirty, forty = folders
    assert checkpoints_to_delete(folders, 2, Path("checkpoint-None")) == [ten, twenty]
    assert checkpoints_to_delete(folders, 2, twenty) == [ten, thirty]
    assert checkpoints_to_delete(folders, 1, ten) == [twenty, thirty]
    assert checkpoints_to_delete(folders, 2, forty) == [ten, twenty]
    assert checkpoints_to_delete(folders, None, ten) == []
    assert checkpoints_to_delete(folders, 5, ten) == []
