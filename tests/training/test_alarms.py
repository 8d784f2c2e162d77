"""Alarms: each goes off in a run that has its cause, and healthy runs are silent."""

import json
import math
import random
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from training_workspace import COLOURS
from transformers import TrainerCallback

from mmtune.build import build_parts, calibrate_projector
from mmtune.build_data import build_reader
from mmtune.cli import main
from mmtune.config import load_config
from mmtune.conversation import IGNORE_INDEX
from mmtune.training import alarm_checks, trainer
from mmtune.training.alarm_checks import CHECKS
from mmtune.training.alarms import Alarms
from mmtune.training.callbacks import RunLog, read_log
from mmtune.training.checkpoints import CheckpointWriter
from mmtune.training.data import prepare_data
from mmtune.training.history import History
from mmtune.training.meter import StepMeter
from mmtune.training.rows import choose_collator
from mmtune.training.trainer import RunTrainer

QUIET = ("train.save_steps=0", "train.output_dir=runs/run")
LEARNING = (
    "model.llm.tune=full",
    "model.adapter=null",
    "train.learning_rate=1e-2",
    "train.per_device_train_batch_size=8",
)


def alarms_of(folder="runs/run"):
    """The alarms that a run's log holds: name -> message."""
    return {line["alarm"]: line["message"] for line in read_log(Path(folder, "log.jsonl")) if "alarm" in line}


def run(verb, *changes, code=0):
    assert main([verb, f"{verb}.yaml", *QUIET, *changes]) == code
    return alarms_of()


@pytest.fixture
def pretrained(workspace):
    """Also more data than ten records, with answers that no image foretells: none is learned by heart."""
    rng = random.Random(1)
    records = []
    for number in range(200):
        name = rng.choice(list(COLOURS))
        Image.new("RGB", (32, 32), COLOURS[name]).save(f"many_{number}.png")
        words = [
            {"from": "human", "value": "<image>\nWhat colour?"},
            {"from": "gpt", "value": f"It is {rng.choice(list(COLOURS))}."},
        ]
        records.append({"image": f"many_{number}.png", "conversations": words})
    Path("many.json").write_text(json.dumps(records))
    assert main(["pretrain", "pretrain.yaml", "train.max_steps=2", "train.save_steps=0"]) == 0
    return workspace


def trained(verb, *changes, rows=None, before=None, callbacks=(), collator=None):
    """Train in this process with parts that a test has changed; return the alarms."""
    config = load_config(f"{verb}.yaml", [*QUIET, *changes], verb)
    folder = Path("runs/run")
    folder.mkdir(parents=True)
    parts = build_parts(config.model, torch.device("cpu"))
    dataset, _ = prepare_data(config, build_reader(config.model), folder)
    calibrate_projector(config.model, parts, dataset)
    if before is not None:
        before(parts.model)
    meter = StepMeter(parts.model, parts.transform.image_size)
    run_log = RunLog(folder, meter)
    collate = choose_collator(config, parts.model)
    watched = [run_log, *callbacks, Alarms(config, verb, parts.model, meter, run_log)]
    taken = dataset if rows is None else rows(dataset)
    collated = collate if collator is None else lambda samples: collator(collate(samples))
    writer = CheckpointWriter(Path(config.train.output_dir))
    RunTrainer(parts.model, config, taken, collated, lambda folder: None, meter, writer, watched).train()
    return alarms_of()


# Healthy runs


def test_runs_that_learn_are_silent(pretrained, capsys):
    changes = ("data.train.0.path=many.json", "train.max_steps=150", *LEARNING)
    assert run("finetune", *changes) == {}
    lines = read_log(Path("runs/run/log.jsonl"))
    assert lines[-1]["loss"] < 0.3 * math.log(250)
    assert "alarm" not in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["pretrain", "finetune"])
def test_short_runs_are_silent(pretrained, verb):
    assert run(verb, "train.num_train_epochs=4") == {}


@pytest.mark.parametrize("verb", ["pretrain", "finetune", "sft"])
@pytest.mark.parametrize("seed", range(5))
def test_published_curves_with_their_noise_are_silent(verb, seed):
    """Losses of LLaVA's stages and of text in batches of one, whose noise has heavy tails."""
    rng = random.Random(seed)
    first, last, noise = {"pretrain": (6.5, 2.1, 0.15), "finetune": (1.9, 1.0, 0.2), "sft": (2.2, 1.4, 0.8)}[verb]
    history = History(verb, math.log(92_544), 65, verb == "pretrain", 1.0, 0, True)
    for step in range(1, 2182):
        loss = last + (first - last) * math.exp(-step / 60) + noise * max(-0.9, rng.gauss(0, 1) ** 3 / 3)
        logs = {"loss": max(loss, 0.05), "grad_norm": math.exp(rng.gauss(0.5, 0.8))}
        history.add(step, logs, figures(wait=rng.random() / 3), 1e-4)
        assert {name for name, check in CHECKS.items() if check(history)} == set()


def figures(wait=0.0, padding=0.0):
    return {
        "seconds_per_step": 2.0,
        "data_wait_share": wait,
        "padding_share": padding,
        "supervised_tokens_per_second": 100.0,
    }


def test_a_loss_that_is_not_finite_does_not_count():
    history = History("sft", 10.0, 0, False, 1.0, 0, True)
    for step in range(1, 300):
        bad = step % 3 == 0
        history.add(step, {"loss": math.nan if bad else 2.0, "grad_norm": math.inf if bad else 1.0}, {}, 1e-4)
        assert not any(check(history) for check in CHECKS.values())
    assert len(history.losses) == 200


# What is wrong with weights and gradients


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (["train.learning_rate=1e-30"], "its rate is 1.0e-30. Raise model.projector.learning_rate"),
        (
            ["train.learning_rate=1e-9", "train.pure_bf16=true", "model.llm.dtype=bfloat16"],
            "its weights are bfloat16, which rounds such steps away. Set train.pure_bf16 to false",
        ),
    ],
)
def test_a_projector_that_does_not_move(workspace, capsys, changes, reason):
    found = run("pretrain", "train.max_steps=20", *changes)
    assert list(found) == ["does_not_move"]
    assert reason in found["does_not_move"]
    said = [line for line in capsys.readouterr().err.splitlines() if "alarm" in line]
    assert said[0].startswith("warning: step 20: the projector trains but does not move (20 steps ")
    assert said[1:] == ["warning: alarms of this run: does_not_move 1x from step 20"]


def test_an_adapter_that_does_not_move_while_the_projector_does(pretrained):
    found = run("finetune", "train.max_steps=20", "model.llm.learning_rate=1e-30")
    assert list(found) == ["does_not_move"]
    assert found["does_not_move"].startswith("the llm trains but does not move")
    assert "Raise model.llm.learning_rate" in found["does_not_move"]


def test_a_part_that_the_optimizer_does_not_hold(workspace, monkeypatch):
    groups = trainer.parameter_groups

    def of_adapters_alone(config, model, decayed):
        ids = {id(value) for value in model.projector.parameters()}
        found = groups(config, model, decayed)
        kept = [group | {"params": [p for p in group["params"] if id(p) not in ids]} for group in found]
        return [group for group in kept if group["params"]]

    assert main(["pretrain", "pretrain.yaml"]) == 0
    monkeypatch.setattr(trainer, "parameter_groups", of_adapters_alone)
    found = run("finetune", "train.max_steps=20")
    assert "the optimizer does not hold its weights" in found["does_not_move"]


def deaf(model):
    """A language model whose tokens do not see each other: no answer depends on an image."""
    for layer in model.base_llm.model.layers:
        torch.nn.init.zeros_(layer.self_attn.o_proj.weight)


def test_a_gradient_of_zero_names_part_and_tensors(workspace):
    found = trained("pretrain", "train.max_steps=20", before=deaf)
    assert set(found) == {"no_gradient", "does_not_move"}
    assert "the gradient of the whole projector was 0 at 10 steps in a row (projector." in found["no_gradient"]
    assert "its gradient is 0" in found["does_not_move"]


def test_text_alone_is_no_reason_for_an_alarm_about_the_projector(pretrained):
    Path("text.json").write_text(
        json.dumps(
            [
                {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": f"Hello {number}."}]}
                for number in range(30)
            ]
        )
    )
    found = run("finetune", "data.train.0.path=text.json", "train.max_steps=25")
    assert "does_not_move" not in found
    assert "no_gradient" not in found


# What is wrong with losses and rates


def test_a_model_that_guesses(workspace):
    found = run("pretrain", "train.max_steps=30", "train.num_train_epochs=20")
    assert list(found) == ["loss_of_chance"]


def test_a_loss_above_those_of_the_stage(pretrained):
    found = run("finetune", "train.max_steps=110", "data.train.0.path=many.json")
    assert list(found) == ["loss_too_high"]
    assert "finetune is below 1.7 by then" in found["loss_too_high"]


def test_a_projector_that_learns_nothing(workspace):
    found = run("pretrain", "train.max_steps=215", "train.learning_rate=1e-5", "train.per_device_train_batch_size=1")
    assert set(found) == {"loss_of_chance", "loss_flat"}


def test_answers_that_are_known_by_heart(pretrained):
    record = {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}]}
    Path("one.json").write_text(json.dumps([record]))
    found = run("finetune", "data.train.0.path=one.json", "train.max_steps=90", *LEARNING)
    assert list(found) == ["loss_near_zero"]


class RaisesTheRate(TrainerCallback):
    def on_step_begin(self, args, state, control, **given):
        if state.global_step >= 70:
            for group in given["optimizer"].param_groups:
                group["lr"] = 0.2


def test_a_run_that_falls_apart(pretrained):
    found = trained(
        "finetune", "data.train.0.path=many.json", "train.max_steps=160", *LEARNING, callbacks=[RaisesTheRate()]
    )
    assert {"loss_spike", "loss_rises"} <= set(found)


def test_gradients_that_explode(pretrained):
    class Scales(TrainerCallback):
        def on_step_begin(self, args, state, control, **given):
            if state.global_step == 60:
                torch.nn.init.normal_(given["model"].base_llm.lm_head.weight, std=300.0)

    found = trained("finetune", "data.train.0.path=many.json", "train.max_steps=70", callbacks=[Scales()])
    assert {"gradients_explode", "loss_spike"} <= set(found)


def test_gradients_that_are_always_clipped(pretrained):
    found = run("finetune", "data.train.0.path=many.json", "train.max_steps=110", *LEARNING, "train.max_grad_norm=1e-4")
    assert list(found) == ["gradients_clipped"]


def test_a_schedule_that_ends_before_the_run(workspace):
    schedule = "train.lr_scheduler_kwargs={num_decay_steps: 2, num_stable_steps: 1}"
    found = run("pretrain", "train.max_steps=18", "train.lr_scheduler_type=warmup_stable_decay", schedule)
    assert list(found) == ["rate_of_zero"]


# What is wrong with data and speed


def test_steps_without_supervised_tokens(workspace):
    def without_labels(batch):
        return batch | {"labels": torch.full_like(batch["labels"], IGNORE_INDEX)}

    found = trained("pretrain", "train.max_steps=2", collator=without_labels)
    assert list(found) == ["no_supervised_tokens"]


def test_data_whose_answers_are_all_cut_is_refused_before_a_model_loads(workspace, capsys):
    assert run("pretrain", "data.max_length=12", code=2) == {}
    assert "data.max_length" in capsys.readouterr().err


def test_a_device_that_waits_for_data(workspace, monkeypatch):
    monkeypatch.setattr(alarm_checks, "WAIT_SECONDS", 1.0)

    def slow(batch):
        time.sleep(0.2)
        return batch

    found = trained("pretrain", "train.max_steps=9", collator=slow)
    assert list(found) == ["data_wait"]
    assert "Raise train.dataloader_num_workers (now 0)" in found["data_wait"]


def test_rows_that_are_mostly_padding(pretrained):
    records = json.loads(Path("many.json").read_text())[:120]
    for record in records[::8]:
        record["conversations"][1]["value"] = "It is a colour that I would not name at once. " * 4
    Path("uneven.json").write_text(json.dumps(records))
    found = run("finetune", "data.train.0.path=uneven.json", "train.max_steps=60", *LEARNING, "data.padding_free=false")
    assert list(found) == ["much_padding"]
    assert "Set data.padding_free, or data.group_by_length;" in found["much_padding"]


# What an alarm does


def test_error_ends_the_run_and_none_is_silent(workspace, capsys):
    changes = ("train.max_steps=25", "train.learning_rate=1e-30")
    assert "does_not_move" in run("pretrain", *changes, "train.alarms=error", code=2)
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("mmtune: runs/run, step 20: the projector trains but does not move")
    assert last.endswith("(alarm does_not_move; train.alarms is error)")
    assert run("pretrain", *changes, "train.alarms=none", "--overwrite") == {}
    assert "alarm" not in capsys.readouterr().err


def test_an_alarm_is_said_once_and_counted(workspace, capsys):
    run("pretrain", "train.max_steps=30")
    said = [line for line in capsys.readouterr().err.splitlines() if "alarm" in line]
    assert len(said) == 2
    assert said[1] == "warning: alarms of this run: loss_of_chance 10x from step 21"


def test_every_alarm_is_explained():
    text = (Path(__file__).parents[2] / "docs" / "watching.md").read_text(encoding="utf-8")
    for name in (*CHECKS, "does_not_move", "no_gradient"):
        assert f"| `{name}` |" in text
