"""Training runs on the page: found, read while they write, shown as text."""

import json
import os
import shutil
import socket
import time
from pathlib import Path

import pytest
from training_workspace import make, models, write_workspace

from mmtune.serve.run_page import run_page
from mmtune.serve.run_view import find_runs, fingerprint, read_run
from mmtune.serve.web_curves import Curve, chart, figure, ticks
from mmtune.serve.web_text import LANGUAGES
from mmtune.training import run as training

__all__ = ["models"]

HOSTILE = "<script>alert(1)</script>"
SAMPLE = ["sample.every_steps=2", f'sample.questions=["What colour?{HOSTILE}"]', "sample.images=[0.png]"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, models):
    """A folder with a pretrained and a finetuned run, and what was seen of the latter at its first step."""
    folder = tmp_path_factory.mktemp("trained")
    seen = {}

    def fit(*args):
        shutil.copytree("runs/recipe/finetune", "early")
        seen["early"] = read_run(Path("runs/recipe/finetune"))
        _fit(*args)

    _fit = training._fit
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_workspace(models)
        make("pretrain", verb="pretrain")
        patch.setattr(training, "_fit", fit)
        held_out = ["data.validation=[{path: dialogues.json}]", "train.eval_steps=3"]
        make("recipe/finetune", "train.max_steps=6", *SAMPLE, *held_out)
    return folder, seen["early"]


@pytest.fixture
def root(trained, tmp_path, monkeypatch):
    shutil.copytree(trained[0], tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


def under_way(folder, text, pid):
    """Let a run look as it does while a process trains it."""
    (folder / "manifest.json").unlink(missing_ok=True)
    (folder / "log.jsonl").write_text(text)
    (folder / ".lock").write_text(f"process {pid} on {socket.gethostname()}\n")


def test_runs_are_found_the_newest_first(root):
    os.utime(root / "pretrain" / "log.jsonl", (1, 1))
    os.utime(root / "pretrain" / "config.yaml", (1, 1))
    assert find_runs(root) == ["recipe/finetune", "pretrain"]
    assert find_runs(root / "pretrain") == ["."]
    assert find_runs(root / "nothing") == []
    (root / "elsewhere").symlink_to(root / "pretrain")
    assert "elsewhere" not in find_runs(root)


def test_a_run_that_trains_says_from_its_first_step_what_it_is(trained):
    _, early = trained
    assert early.state == "running"
    assert early.config.train.max_steps == 6
    assert early.versions["verb"] == "finetune"
    assert early.data["num_samples"] == 10
    assert (early.share_done, early.step) == (None, 0)
    assert "training now" in run_page(early, "en")


def test_a_complete_run_shows_curves_answers_and_card(root):
    run = read_run(root / "recipe" / "finetune")
    assert (run.state, run.step, run.share_done, run.total_steps) == ("complete", 6, 1.0, 6)
    assert [step for step, _ in run.curve("eval_loss")] == [3, 6]
    (sample,) = run.samples()
    assert [step for step, _ in sample.answers] == [0, 2, 4, 6]
    page = run_page(run, "en")
    for words in ("complete", "step 6 of 6", "Loss per supervised token", "held out", "Gradient norm", "Learning rate"):
        assert words in page
    for words in ("finetune", "kind lora", "runs/pretrain", "dialogues.json"):
        assert words in page
    assert "data:image/png;base64," in page
    assert str(root) not in page
    assert "已完成" in run_page(run, "zh")


def test_a_half_written_line_is_no_error_and_a_run_that_writes_is_seen(root):
    folder = root / "recipe" / "finetune"
    lines = (folder / "log.jsonl").read_text().splitlines(keepends=True)
    under_way(folder, lines[0] + lines[1][: len(lines[1]) // 2], os.getpid())
    run = read_run(folder)
    assert (run.state, run.step, run.total_steps) == ("running", 1, 6)
    assert run.share_done == pytest.approx(1 / 6)
    assert run.seconds_left == pytest.approx(5 * run.seconds)
    mark = fingerprint(folder)
    with (folder / "log.jsonl").open("a") as file:
        file.write(lines[1][len(lines[1]) // 2 :])
    assert fingerprint(folder) != mark
    assert read_run(folder).step == 2
    assert "left" in run_page(read_run(folder), "en")


def test_a_run_whose_process_is_gone_was_interrupted(root):
    folder = root / "pretrain"
    log = (folder / "log.jsonl").read_text()
    under_way(folder, log, 2**22 + 1)
    assert read_run(folder).state == "stopped"
    assert "ended before its end" in run_page(read_run(folder), "en")
    (folder / ".lock").write_text("process 1 on another-machine\n")
    assert read_run(folder).state == "running", "its log has just grown"
    os.utime(folder / "log.jsonl", (time.time() - 4000,) * 2)
    assert read_run(folder).state == "stopped"


def test_a_folder_with_a_log_alone_can_be_shown(root):
    (root / "bare").mkdir()
    (root / "bare" / "log.jsonl").write_text(
        '{"step": 1, "epoch": 0.5, "seconds": 2.0, "loss": null, "learning_rate": 0.1}\n'
    )
    run = read_run(root / "bare")
    assert run.share_done is None
    assert "step 1" in run_page(run, "en")


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_text_of_a_run_becomes_markup(root, language):
    folder = root / "recipe" / "finetune"
    alarm = {"step": 6, "epoch": 1.0, "seconds": 9.0, "alarm": HOSTILE, "message": HOSTILE}
    with (folder / "log.jsonl").open("a") as file:
        file.write(json.dumps(alarm) + "\n")
    answer = {"step": 8, "question": HOSTILE, "images": [f"{HOSTILE}.png"], "answer": HOSTILE}
    with (folder / "samples.jsonl").open("a") as file:
        file.write(json.dumps(answer) + "\n")
    for name in ("config.yaml", "versions.json", "data.json"):
        text = (folder / name).read_text().replace("dialogues.json", f"{HOSTILE}.json")
        (folder / name).write_text(text.replace("2.13", f"2.13{HOSTILE}"))
    page = run_page(read_run(folder), language)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 5


def test_curves_have_round_ticks_and_the_last_value():
    assert ticks(0, 0.0011, 5) == pytest.approx([0, 0.0005, 0.001])
    assert ticks(3, 3, 5) == [3.0]
    assert [figure(value) for value in (0, 2.3456, 0.00015, 12345)] == ["0", "2.35", "1.5e-4", "12,345"]
    curve = Curve("<b>", [(step, 1 / step) for step in range(1, 5001)])
    drawn = chart("<i>loss", [curve, Curve("none", [])], "step")
    assert "<b>0.0002</b>" not in drawn
    assert "&lt;i&gt;loss" in drawn
    assert "&lt;b&gt;" in drawn
    assert drawn.count(",") < 1500, "a long run is thinned"
    assert chart("none", [Curve("none", [])], "step") == ""
    assert "nan" not in chart("one", [Curve("one", [(5, 0.0)])], "step")
