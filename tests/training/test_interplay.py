"""Runs that are measured, asked and stopped early, and that go on: what each part does where the others are at work."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from training_workspace import make, models, workspace

from mmtune.cli import main
from mmtune.data.images import ImageTransform
from mmtune.run_folder import require_complete
from mmtune.training.callbacks import read_log
from mmtune.training.evaluation import Evaluation

__all__ = ["models", "workspace"]

HELD = "data.validation_fraction=0.2"
WATCHED = (HELD, "train.eval_steps=2", "train.max_steps=6")
BEST = ("train.metric_for_best_model=eval_loss", "train.load_best_model_at_end=true", "train.greater_is_better=true")
ASKED = "sample={questions: [Hi], every_steps: 3, max_new_tokens: 4}"


def pretrain(name, *changes):
    return main(["pretrain", "pretrain.yaml", f"train.output_dir=runs/{name}", "train.save_steps=2", *changes])


def last_line(capsys):
    return capsys.readouterr().err.splitlines()[-1]


@pytest.fixture
def signal_while_measuring(monkeypatch):
    """Choose at which evaluation Ctrl-C comes; the count starts anew each time."""
    measure = Evaluation.measure

    def choose(number):
        left = [number]

        def measured(self, *given):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGINT)
            return measure(self, *given)

        monkeypatch.setattr(Evaluation, "measure", measured)

    return choose


def test_a_signal_while_measuring_ends_the_run_without_questions(workspace, signal_while_measuring):
    changes = (*WATCHED, ASKED)
    assert pretrain("straight", *changes) == 0
    signal_while_measuring(1)
    assert pretrain("again", *changes) == 130
    assert [path.name for path in Path("runs/again").glob("checkpoint-*")] == ["checkpoint-2"]
    assert pretrain("again", *changes, "--resume") == 0
    for name in ("samples.jsonl", "samples.md", "best.json"):
        straight, again = Path("runs/straight", name), Path("runs/again", name)
        assert straight.exists() == again.exists()
        assert not straight.exists() or straight.read_text() == again.read_text()


def test_ctrl_c_is_passed_over_by_the_workers_of_an_evaluation(workspace, monkeypatch, capfd):
    """A terminal sends it to all processes; here to those alone that open the images that are measured."""
    parent, open_image = os.getpid(), ImageTransform.open

    def opened(self, source, *given):
        if os.getpid() != parent and "measured" in str(source):
            os.kill(os.getpid(), signal.SIGINT)
        return open_image(self, source, *given)

    monkeypatch.setattr(ImageTransform, "open", opened)
    shutil.copy("0.png", "measured.png")
    record = {**json.loads(Path("captions.json").read_text())[0], "image": "measured.png"}
    Path("measured.json").write_text(json.dumps([record]))
    measured = ("data.validation=[{path: measured.json}]", "train.dataloader_num_workers=1", "train.max_steps=2")
    assert pretrain("again", *measured) == 0
    assert "Ctrl-C" not in capfd.readouterr().err


def test_a_signal_in_the_last_evaluation_leaves_a_complete_run(workspace, signal_while_measuring):
    signal_while_measuring(3)
    assert pretrain("run", *WATCHED, ASKED) == 0
    assert [entry["step"] for entry in read_log(Path("runs/run/samples.jsonl"))] == [0, 3, 6]
    assert Path("runs/run/manifest.json").is_file()


def test_a_complete_run_without_checkpoints_is_not_trained_anew(workspace, capsys):
    assert pretrain("run", "train.max_steps=4", "train.save_steps=0") == 0
    before = Path("runs/run/projector.safetensors").read_bytes()
    longer = ("train.save_steps=0", "train.max_steps=6", "--resume")
    capsys.readouterr()
    assert pretrain("run", *longer) == 2
    assert last_line(capsys) == (
        "mmtune: runs/run: is a complete run, and no checkpoint of it is left to go on from. "
        "Start another run from its weights: model.init_from=runs/run."
    )
    assert Path("runs/run/projector.safetensors").read_bytes() == before
    assert pretrain("run", "train.max_steps=4", "train.save_steps=0") == 0


def test_an_override_behind_resume_is_one(workspace):
    assert pretrain("run", "train.max_steps=2") == 0
    assert main(["pretrain", "pretrain.yaml", "train.output_dir=runs/run", "--resume", "train.max_steps=4"]) == 0
    assert json.loads(Path("runs/run/manifest.json").read_text())["steps"] == 4


def test_a_run_that_stopped_early_goes_on_with_more_patience_alone(workspace, capsys):
    stops = (*WATCHED, *BEST[:1], "train.early_stopping_threshold=9", "train.eval_steps=1")
    assert pretrain("run", *stops, "train.early_stopping_patience=1") == 0
    manifest = Path("runs/run/manifest.json")
    assert json.loads(manifest.read_text())["steps"] == 2
    assert pretrain("run", *stops, "train.early_stopping_patience=1", "train.max_steps=8", "--resume") == 0
    assert json.loads(manifest.read_text())["steps"] == 2
    assert "this run had stopped early at step 2, after 1 evaluations that were no better" in capsys.readouterr().err
    more = "train.early_stopping_patience=3"
    assert pretrain("run", *stops, more, "train.max_steps=8") == 2
    assert "train.early_stopping_patience: 1 -> 3" in last_line(capsys)
    assert pretrain("run", *stops, more, "train.max_steps=8", "--resume") == 0
    assert json.loads(manifest.read_text())["steps"] == 4


def test_a_run_whose_best_checkpoint_is_gone_goes_on_without_it(workspace, capsys):
    changes = (*WATCHED, *BEST)
    assert pretrain("run", *changes) == 0
    best = json.loads(Path("runs/run/best.json").read_text())["step"]
    assert best < 6
    Path("runs/run/manifest.json").unlink()
    shutil.rmtree(f"runs/run/checkpoint-{best}")
    shutil.rmtree("runs/run/checkpoint-6", ignore_errors=True)
    assert pretrain("run", *changes, "--resume") == 2
    mend = "train.load_best_model_at_end=false"
    assert last_line(capsys).endswith(f"and it is gone. Restore it, or go on without it: {mend}.")
    assert pretrain("run", *changes, mend, "--resume") == 0
    assert "From here on the best is chosen anew" in capsys.readouterr().err
    after = json.loads(Path("runs/run/best.json").read_text())
    assert after["step"] > best
    assert Path("runs/run", after["checkpoint"], "manifest.json").is_file()


def test_a_share_that_is_drawn_anew_is_said(workspace, capsys):
    assert pretrain("run", *WATCHED) == 0
    records = json.loads(Path("captions.json").read_text())
    Path("captions.json").write_text(json.dumps([*records, *json.loads(Path("dialogues.json").read_text())]))
    capsys.readouterr()
    assert pretrain("run", *WATCHED, "train.max_steps=8", "--resume") == 0
    error = capsys.readouterr().err
    assert "data.validation_fraction is drawn anew from all samples: some that are measured from here on were" in error


def test_a_chosen_batch_says_once_what_is_measured(workspace, capsys):
    auto = ("train.per_device_train_batch_size=auto", "train.global_batch_size=2")
    assert make("run", *WATCHED, *auto, verb="pretrain").is_dir()
    assert capsys.readouterr().err.count("validation: ") == 1


def test_a_signal_saves_where_only_the_best_is_saved(workspace, signal_while_measuring, capsys):
    changes = (*WATCHED, *BEST, "train.save_steps=0")
    assert pretrain("straight", *changes) == 0
    best = json.loads(Path("runs/straight/best.json").read_text())["step"]
    assert best == 2, "the second evaluation is no better"
    signal_while_measuring(2)
    assert pretrain("again", *changes) == 130
    assert last_line(capsys) == "mmtune: Ctrl-C: saved runs/again/checkpoint-4; --resume continues"
    assert pretrain("again", *changes, "--resume") == 0
    straight, again = Path("runs/straight"), Path("runs/again")
    assert (again / "projector.safetensors").read_bytes() == (straight / "projector.safetensors").read_bytes()
    assert (again / "best.json").read_text() == (straight / "best.json").read_text()


def test_what_was_set_aside_twice_is_no_part_of_the_run(workspace):
    changes = ("train.max_steps=6", "train.save_total_limit=null")
    assert pretrain("run", *changes) == 0
    for _ in range(2):
        Path("runs/run/manifest.json").unlink()
        assert pretrain("run", *changes, "--resume", "runs/run/checkpoint-4") == 0
    aside = sorted(Path("runs/run").glob("set-aside-*"))
    assert [path.name for path in aside] == ["set-aside-checkpoint-6", "set-aside-checkpoint-6-2"]
    for path in aside:
        shutil.rmtree(path)
    require_complete(Path("runs/run"), check_hashes=True)


def test_what_is_refused_leaves_a_complete_run_as_it_was(workspace, capsys):
    """The data is compared after the config, and other data is refused: nothing of the run was touched by then."""
    assert pretrain("again") == 0
    before = {path: path.stat().st_mtime_ns for path in Path("runs/again").rglob("*") if path.name != ".lock"}
    records = json.loads(Path("captions.json").read_text())
    records[2]["conversations"][1]["value"] += " Indeed."
    Path("captions.json").write_text(json.dumps(records))
    assert pretrain("again", "train.num_train_epochs=3", "--resume") == 2
    assert "its 10 samples have changed" in last_line(capsys)
    chosen = ("--resume", "runs/again/checkpoint-4")
    assert pretrain("again", "train.num_train_epochs=3", *chosen) == 2
    assert "its 10 samples have changed" in last_line(capsys)
    assert pretrain("again", "train.num_train_epochs=3", "train.seed=7", *chosen) == 2
    after = {path: path.stat().st_mtime_ns for path in Path("runs/again").rglob("*") if path.name != ".lock"}
    assert after == before
    require_complete(Path("runs/again"), check_hashes=True)
