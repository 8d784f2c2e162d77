"""Runs that are killed at any moment and started again end with the weights of the run that was left alone."""

import json
import os
import random
import shutil
import signal
from pathlib import Path

import pytest
import torch
import yaml
from killing import run, start
from recipe_workspace import STEPS, results, write_recipe
from safetensors.torch import load_file

from mmtune.errors import CheckpointError
from mmtune.run_folder import checkpoints, is_complete, require_complete
from mmtune.training.callbacks import read_log

CHANGES = (
    "data.pack_to_max_length=true",
    "data.max_length=128",
    "train.dataloader_num_workers=2",
    "train.per_device_train_batch_size=1",
    "train.num_train_epochs=3",
    "train.save_steps=3",
    "train.save_total_limit=2",
)


@pytest.fixture
def ready(workspace):
    """The workspace with a finished first stage, its cache inside."""
    os.environ["MMTUNE_CACHE"] = str(workspace / "cache")
    yield workspace
    del os.environ["MMTUNE_CACHE"]


def command(name, *more):
    return ["finetune", "finetune.yaml", f"train.output_dir=runs/{name}", *CHANGES, *more]


def weights(folder):
    files = [Path(folder, name) for name in ("projector.safetensors", "adapter/adapter_model.safetensors")]
    return {f"{path.name}:{key}": value for path in files for key, value in load_file(path).items()}


def assert_equal(folder, other):
    found, expected = weights(folder), weights(other)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], value) for key, value in expected.items())


def kill(process, seconds):
    """Kill a process after some time, with its workers; return whether it was still running."""
    process.join(seconds)
    if process.exitcode is not None:
        return False
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    return True


def newest_step(folder):
    return max((step for step, _ in checkpoints(folder)), default=0)


def wait_for_a_later_checkpoint(process, folder, step):
    while newest_step(folder) <= step and process.exitcode is None:
        process.join(0.005)


def require_sound_newest(folder):
    """No moment leaves a checkpoint that cannot be read: each that is there is whole."""
    for _, path in checkpoints(folder):
        try:
            require_complete(path, check_hashes=True)
        except CheckpointError as error:
            pytest.fail(f"{path.name} is not whole: {error}")


def kill_and_start_again(workspace, seed, num_kills):
    assert run(["pretrain", "pretrain.yaml", "train.save_steps=0"], workspace)[0] == 0
    code, seconds = run(command("straight"), workspace)
    assert code == 0, (workspace / "stderr.txt").read_text()
    num_steps = newest_step(workspace / "runs/straight")
    rng, kills, reached = random.Random(seed), 0, []
    folder = workspace / "runs/killed"
    while kills < num_kills:
        before = newest_step(folder)
        left = seconds * max(0.3, 1 - before / num_steps)  # of a run that comes to its end nothing is seen
        process = start(command("killed", "--resume"), workspace)
        if kills % 2:  # soon after it has come further; else at any moment from its start
            wait_for_a_later_checkpoint(process, folder, before)
        if not kill(process, rng.uniform(0.0, 0.3 if kills % 2 else left)):
            assert process.exitcode == 0, (workspace / "stderr.txt").read_text()
            shutil.rmtree(folder)  # it came to its end: from the beginning again
            continue
        kills += 1
        require_sound_newest(folder)
        reached.append(newest_step(folder))
    assert run(command("killed", "--resume"), workspace)[0] == 0, (workspace / "stderr.txt").read_text()
    assert_equal(folder, "runs/straight")
    losses = [
        [(e["step"], e["loss"]) for e in read_log(Path("runs", n, "log.jsonl")) if "loss" in e]
        for n in ("killed", "straight")
    ]
    assert losses[0] == losses[1]
    assert not list(folder.glob(".saving/*"))
    return reached


def test_three_kills_change_nothing(ready):
    reached = kill_and_start_again(ready, seed=5, num_kills=3)
    assert max(reached) > 0


@pytest.mark.slow
def test_thirty_kills_change_nothing(ready):
    reached = kill_and_start_again(ready, seed=0, num_kills=30)
    assert len(set(reached)) > 3  # they met the run at many places


def test_a_recipe_that_is_killed_and_repeated_ends_with_the_same_weights(ready):
    """Two stages with worker processes; what was complete is not repeated."""
    steps = [
        {"name": "pretrain", "verb": "pretrain", "config": "pretrain.yaml"},
        {
            "name": "finetune",
            "verb": "finetune",
            "config": "finetune.yaml",
            "needs": ["pretrain"],
            "overrides": ["model.init_from=runs/NAME/pretrain"],
        },
    ]
    for name in ("straight", "killed"):
        Path(f"{name}.yaml").write_text(yaml.safe_dump({"steps": steps}).replace("NAME", name))
    code, seconds = run(["run", "straight.yaml"], ready)
    assert code == 0
    rng = random.Random(1)
    for _ in range(4):
        kill(start(["run", "killed.yaml"], ready), rng.uniform(0.2, seconds))
    assert run(["run", "killed.yaml"], ready)[0] == 0
    assert is_complete(Path("runs/killed/finetune"))
    assert_equal("runs/killed/finetune", "runs/straight/finetune")
    assert torch.equal(
        *(load_file(f"runs/{n}/pretrain/projector.safetensors")["layers.0.weight"] for n in ("killed", "straight"))
    )


INTERRUPTIONS = [(step, (signal.SIGKILL, signal.SIGINT)[number % 2]) for number, step in enumerate(STEPS)]


@pytest.mark.slow
def test_a_recipe_interrupted_in_each_step_and_repeated_has_the_same_results(ready):
    """One is killed, or gets Ctrl-C, soon after each of its steps begins; the other is left alone."""
    for name in ("straight", "cut"):
        write_recipe(name)
    assert run(["run", "straight.yaml"], ready)[0] == 0, (ready / "stderr.txt").read_text()
    rng, met = random.Random(3), []
    for step, number in INTERRUPTIONS:
        process = start(["run", "cut.yaml"], ready)
        while not Path(f"runs/cut/{step}.step.json").exists() and process.exitcode is None:
            process.join(0.002)
        process.join(rng.uniform(0.0, 0.5))
        if process.exitcode is None:
            met.append(step)
            os.kill(process.pid, number)
            process.join()
            assert process.exitcode in (-signal.SIGKILL, 130), (ready / "stderr.txt").read_text()
        assert process.exitcode != 2, (ready / "stderr.txt").read_text()
    assert len(set(met)) >= 5
    assert run(["run", "cut.yaml"], ready)[0] == 0, (ready / "stderr.txt").read_text()
    found, expected = (
        json.dumps(by_key(f"runs/{name}")).replace("runs/cut", "runs/straight") for name in ("cut", "straight")
    )
    assert found == expected


def by_key(folder):
    return sorted((str(key), value) for key, value in results(folder).items())
