"""`log.jsonl`: whole lines after a kill, cut on resume from its end, evaluations kept, and the plot of it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from mmtune.cli import main
from mmtune.run_folder import newest_checkpoint
from mmtune.training.callbacks import RunLog, drop_after, read_log, shorten_history
from mmtune.training.plot import MOST_POINTS, plot_loss, running_mean


def line(step, **facts):
    return json.dumps({"step": step, "epoch": step / 10, "seconds": 2.0 * step, "loss": 1.0} | facts) + "\n"


@pytest.mark.parametrize("torn", ["", '{"step": 12, "lo', "\n", "no json\n"])
def test_lines_behind_a_step_are_cut_and_so_is_a_torn_one(tmp_path, torn):
    path = tmp_path / "log.jsonl"
    path.write_text("".join(line(step) for step in range(1, 12)) + torn)
    assert drop_after(path, 7)["seconds"] == 14.0
    assert [entry["step"] for entry in read_log(path)] == [1, 2, 3, 4, 5, 6, 7]
    assert path.read_text().endswith("}\n")
    assert drop_after(path, 7)["step"] == 7
    assert drop_after(path, 0) is None
    assert path.read_bytes() == b""
    assert drop_after(tmp_path / "none.jsonl", 3) is None


def test_blocks_that_end_inside_lines_are_read_right(tmp_path, monkeypatch):
    path = tmp_path / "log.jsonl"
    text = "".join(line(step, note="ä" * step) for step in range(1, 30))
    for size in (1, 7, 64, 1000):
        monkeypatch.setattr("mmtune.training.callbacks.BLOCK_BYTES", size)
        path.write_text(text)
        assert drop_after(path, 11)["note"] == "ä" * 11
        assert path.read_text() == "".join(line(step, note="ä" * step) for step in range(1, 12))


def test_a_long_run_continues_at_once(tmp_path):
    """The time does not depend on the length of the run: 200,000 lines before take no longer than 200."""
    path = tmp_path / "log.jsonl"
    filler = "x" * 500
    with path.open("w") as file:
        file.writelines(line(step, note=filler) for step in range(200_000))
    started = time.perf_counter()
    log = RunLog(tmp_path, SimpleNamespace(figures={}), first_step=199_900)
    assert time.perf_counter() - started < 0.2
    assert log.seconds_before == 2 * 199_900
    log.close()


def test_steps_and_evaluations_are_lines_and_the_summary_is_none(tmp_path):
    log = RunLog(tmp_path, SimpleNamespace(figures={"samples_per_second": 3.0}))
    state = SimpleNamespace(global_step=4, epoch=0.5, is_world_process_zero=True)
    log.on_log(None, state, None, {"loss": float("nan"), "learning_rate": 1e-3, "grad_norm": 2.0, "other": 1})
    log.on_log(None, state, None, {"eval_loss": 1.5, "eval_runtime": 2.0, "epoch": 0.5})
    log.on_log(None, state, None, {"train_runtime": 12.0})
    log.close()
    steps, evaluations = read_log(tmp_path / "log.jsonl")
    assert steps["loss"] is None
    assert steps["speed"] == {"samples_per_second": 3.0}
    assert "other" not in steps
    assert {key: evaluations[key] for key in ("step", "eval_loss", "eval_runtime")} == {
        "step": 4,
        "eval_loss": 1.5,
        "eval_runtime": 2.0,
    }


@pytest.mark.slow  # three kills of test_kill.py are in every run of the tests
def test_after_a_kill_every_line_is_whole_and_a_resume_goes_on(workspace):
    command = [sys.executable, "-m", "mmtune", "pretrain", "pretrain.yaml", "train.num_train_epochs=40"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    path = Path("runs/pretrain/log.jsonl")
    while process.poll() is None and (not path.exists() or path.read_bytes().count(b"\n") < 20):
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    content = path.read_bytes()
    assert content.endswith(b"\n")
    lines = [json.loads(text) for text in content.splitlines()]
    steps = [line["step"] for line in lines if "loss" in line]
    assert steps == list(range(1, len(steps) + 1))
    newest = int(newest_checkpoint(path.parent).name.split("-")[1])
    assert main(["pretrain", "pretrain.yaml", "train.num_train_epochs=40", "--resume"]) == 0
    entries = [line for line in read_log(path) if "loss" in line]
    assert [entry["step"] for entry in entries] == list(range(1, 201))
    assert entries[newest]["seconds"] > entries[newest - 1]["seconds"]


def test_the_state_of_a_checkpoint_does_not_grow_with_the_log(workspace):
    assert main(["pretrain", "pretrain.yaml", "train.num_train_epochs=8", "train.save_steps=40"]) == 0
    state = json.loads(Path("runs/pretrain/checkpoint-40/trainer_state.json").read_text())
    assert [entry["step"] for entry in state["log_history"]] == list(range(31, 41))
    assert set(state["log_history"][0]) == {"step", "epoch", "loss", "learning_rate", "grad_norm"}


def test_the_history_since_the_last_evaluation_stays():
    history = [{"step": step, "loss": 1.0} for step in range(100)]
    shorten_history(history, evaluates=True)
    assert len(history) == 100
    history[60:60] = [{"step": 60, "eval_loss": 1.0}]
    shorten_history(history, evaluates=True)
    assert "eval_loss" in history[0]
    assert len(history) == 41
    shorten_history(history, evaluates=False)
    assert len(history) == 10


def test_the_plot_is_there_after_the_first_epoch(workspace, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "mmtune.training.callbacks.plot_loss",
        lambda entries, path, title: (plot_loss(entries, path, title), drawn.append((len(entries), title))),
    )
    assert main(["pretrain", "pretrain.yaml"]) == 0
    assert drawn == [(5, "pretrain"), (10, "pretrain")]
    with Image.open("runs/pretrain/loss.png") as picture:
        assert picture.size == (936, 520)
    assert not list(Path("runs/pretrain").glob("*.part"))


def test_a_long_log_is_thinned_and_held_out_losses_are_drawn(tmp_path):
    entries = [{"step": step, "loss": 2.0} for step in range(1, 30_001)]
    plot_loss(entries, tmp_path / "plain.png")
    plot_loss([*entries, {"step": 5, "loss": None}, {"step": 7, "alarm": "x"}], tmp_path / "gaps.png")
    plot_loss([*entries, {"step": 15_000, "eval_loss": 1.0}], tmp_path / "held_out.png")
    plain, gaps, held_out = (
        Image.open(tmp_path / f"{name}.png").convert("RGB").tobytes() for name in ("plain", "gaps", "held_out")
    )
    assert gaps == plain
    assert held_out != plain
    assert len({*range(0, 30_000, -(-30_000 // MOST_POINTS))}) <= MOST_POINTS
    plot_loss([{"step": 7, "alarm": "x"}], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_the_running_mean_starts_at_the_first_value_and_follows():
    assert running_mean([3.0]) == pytest.approx([3.0])
    assert running_mean([3.0] * 50) == pytest.approx([3.0] * 50)
    means = running_mean([4.0] * 100 + [2.0] * 400)
    assert means[99] == pytest.approx(4.0)
    assert 3.5 < means[100] < 4.0
    assert means[-1] == pytest.approx(2.0, abs=0.01)
