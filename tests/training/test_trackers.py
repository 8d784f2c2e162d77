"""Trackers: a real event file of TensorBoard, what is missing is said before a model loads, a resume goes on."""

import json
import os
import sqlite3
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mmtune.cli import main
from mmtune.config import load_config
from mmtune.training.callbacks import read_log
from mmtune.training.trackers import RunTracking, tracked_run

RUN = ("train.max_steps=6", "train.save_steps=3")
EVENTS = Path("runs/pretrain/tracking/tensorboard")


def interrupt_at_3():
    for path in ("manifest.json", "checkpoint-6/manifest.json"):
        Path("runs/pretrain", path).unlink()


def events():
    read = EventAccumulator(str(EVENTS), size_guidance={"scalars": 0, "tensors": 0})
    read.Reload()
    return read


def test_tensorboard_gets_the_figures_of_the_log_and_the_config(workspace):
    assert main(["pretrain", "pretrain.yaml", *RUN, "train.report_to=[tensorboard]"]) == 0
    read, entries = events(), read_log(Path("runs/pretrain/log.jsonl"))
    losses = [(event.step, event.value) for event in read.Scalars("train/loss")]
    assert losses == [(entry["step"], pytest.approx(entry["loss"], rel=1e-6)) for entry in entries]
    speeds = [event.value for event in read.Scalars("train/supervised_tokens_per_second")]
    logged = [entry["speed"]["supervised_tokens_per_second"] for entry in entries]
    assert speeds == pytest.approx(logged, rel=1e-6)
    (config,) = read.Tensors("config/text_summary")
    assert "      learning_rate: 0.005\n" in config.tensor_proto.string_val[0].decode()


def test_a_resumed_run_goes_on_in_the_same_curve(workspace):
    assert main(["pretrain", "pretrain.yaml", *RUN, "train.report_to=[tensorboard]"]) == 0
    name = Path("runs/pretrain/tracking/run.json").read_bytes()
    interrupt_at_3()
    assert main(["pretrain", "pretrain.yaml", *RUN, "train.report_to=[tensorboard]", "--resume"]) == 0
    assert [event.step for event in events().Scalars("train/loss")] == [1, 2, 3, 4, 5, 6]
    assert len(list(EVENTS.iterdir())) == 2
    assert Path("runs/pretrain/tracking/run.json").read_bytes() == name


def test_what_trackers_write_is_not_in_the_manifest(workspace):
    assert main(["pretrain", "pretrain.yaml", *RUN, "train.report_to=[tensorboard]"]) == 0
    files = json.loads(Path("runs/pretrain/manifest.json").read_text())["files"]
    assert "log.jsonl" in files
    assert not [name for name in files if name.startswith(("tracking", "run.log"))]


@pytest.mark.parametrize("name", ["wandb", "trackio", "tensorboard"])
def test_a_missing_package_is_said_before_a_model_loads(workspace, capsys, monkeypatch, name):
    def without(wanted, *given):
        return None if wanted == name else find_spec(wanted, *given)

    monkeypatch.setattr("importlib.util.find_spec", without)
    assert main(["pretrain", "pretrain.yaml", f"train.report_to=[{name}]"]) == 2
    told = f"mmtune: train.report_to: {name} is not installed. Run: pip install 'mmtune[{name}]'\n"
    assert capsys.readouterr().err == told
    assert [path.name for path in Path("runs/pretrain").iterdir()] == [".lock"]


def test_another_tracker_is_named_with_those_there_are(workspace, capsys):
    assert main(["pretrain", "pretrain.yaml", "train.report_to=[mlflow]"]) == 2
    told = "mmtune: pretrain.yaml: 'train.report_to[0]' must be tensorboard or wandb or trackio (got \"mlflow\").\n"
    assert capsys.readouterr().err == told


def test_names_of_runs(workspace):
    config = load_config("pretrain.yaml", ["train.run_name=mine"], "pretrain")
    first = tracked_run(config, Path("runs/one"), 0)
    assert first["name"] == "mine"
    assert tracked_run(config, Path("runs/one"), 3) == first
    assert tracked_run(config, Path("runs/one"), 0)["id"] != first["id"]
    config.train.run_name = None
    assert tracked_run(config, Path("runs/two"), 0)["name"].startswith("two-")
    arguments = type("Arguments", (), {})()
    RunTracking(config, first).on_init_end(arguments, None, None)
    assert (arguments.run_name, arguments.project) == ("mine", "mmtune")


@pytest.fixture(scope="session")
def packages(tmp_path_factory):
    """A folder with wandb and trackio: `MMTUNE_TRACKER_PACKAGES`, or made here."""
    given = os.environ.get("MMTUNE_TRACKER_PACKAGES")
    if given:
        return given
    folder = tmp_path_factory.mktemp("trackers")
    install = [sys.executable, "-m", "pip", "install", "-q", "--target", str(folder), "wandb>=0.22", "trackio>=0.22"]
    subprocess.run(install, check=True)
    return str(folder)


@pytest.fixture
def tracked(packages, workspace):
    """Return a function that trains in a process that has the packages, without a network account."""

    def train(*changes, **variables):
        path = os.pathsep.join([*filter(None, [os.environ.get("PYTHONPATH")]), packages])
        command = [sys.executable, "-m", "mmtune", "pretrain", "pretrain.yaml", *RUN, *changes]
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "TRACKIO"))}
        environment = clean | {"PYTHONPATH": path} | variables
        return subprocess.run(command, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL)

    return train


@pytest.mark.slow
def test_wandb_offline_is_one_run_in_the_runs_folder(tracked):
    for resume in ((), ("--resume",)):
        done = tracked("train.report_to=[wandb]", *resume, WANDB_MODE="offline")
        assert done.returncode == 0, done.stderr
        interrupt_at_3()
    run = json.loads(Path("runs/pretrain/tracking/run.json").read_text())
    folders = list(Path("runs/pretrain/tracking/wandb").glob("offline-run-*"))
    assert len(folders) == 2
    assert all(folder.name.endswith(run["id"]) for folder in folders)
    assert all((folder / f"run-{run['id']}.wandb").stat().st_size > 1000 for folder in folders)


@pytest.mark.slow
def test_wandb_without_an_account_is_one_line(tracked):
    done = tracked("train.report_to=[wandb]", WANDB_CONFIG_DIR="nowhere", HOME=os.getcwd(), NETRC="none")
    assert done.returncode == 2
    assert "mmtune: train.report_to: wandb does not start: " in done.stderr.splitlines()[-1]
    assert "WANDB_MODE=offline" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert tracked("train.report_to=[]").returncode == 0


@pytest.mark.slow
def test_trackio_holds_one_run_with_all_steps(tracked):
    for resume in ((), ("--resume",)):
        done = tracked("train.report_to=[trackio]", *resume, TRACKIO_DIR="tracked")
        assert done.returncode == 0, done.stderr
        interrupt_at_3()
    run = json.loads(Path("runs/pretrain/tracking/run.json").read_text())["name"]
    with sqlite3.connect("tracked/mmtune.db") as database:
        rows = database.execute("select run_name, metrics from metrics").fetchall()
        ((config,),) = database.execute("select config from configs where run_name = ?", [run]).fetchall()
    assert {name for name, _ in rows} == {run}
    steps = [json.loads(metrics).get("train/global_step") for _, metrics in rows]
    assert set(steps) >= {1, 2, 3, 4, 5, 6}
    assert json.loads(config)["mmtune"]["train"]["learning_rate"] == 5e-3
