"""What can end a run, each produced for real: a full disk, damaged checkpoints, NaN, dead workers, signals, memory."""

import json
import multiprocessing
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training_workspace import models, workspace

from mmtune.cli import main
from mmtune.data.images import ImageTransform
from mmtune.run_folder import checkpoints, newest_checkpoint, require_complete
from mmtune.training.callbacks import read_log
from mmtune.training.run_lock import run_lock

__all__ = ["models", "workspace"]


def train(*changes):
    return main(["pretrain", "pretrain.yaml", *changes])


def message(capsys):
    """The one line that a run ended with."""
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("mmtune: ")]
    return line.removeprefix("mmtune: ")


def projector(name):
    return load_file(f"runs/{name}/projector.safetensors")


def assert_equal(name, other):
    found, expected = projector(name), projector(other)
    assert all(torch.equal(found[key], value) for key, value in expected.items())


def interrupted_copy():
    """A straight run, and a copy of it that has not reached its end."""
    assert train("train.output_dir=runs/straight") == 0
    shutil.copytree("runs/straight", "runs/again")
    Path("runs/again/manifest.json").unlink()
    for path in Path("runs/again").glob("checkpoint-10"):
        shutil.rmtree(path)


def cut_off(folder):
    path = folder / "projector.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def change_a_byte(folder):
    path = folder / "state/optimizer.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def cut_manifest(folder):
    path = folder / "manifest.json"
    path.write_text(path.read_text()[:40])


DAMAGES = {
    "cut off": (cut_off, "projector.safetensors: has"),
    "changed": (change_a_byte, "optimizer.safetensors: its content is not what the manifest says"),
    "half deleted": (lambda folder: shutil.rmtree(folder / "state"), "is missing, though the manifest lists it"),
    "manifest cut off": (cut_manifest, "manifest.json: cannot be read"),
    "no manifest": (lambda folder: (folder / "manifest.json").unlink(), "it has no manifest.json"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_checkpoint_is_named_and_passed_over(workspace, capsys, damage):
    interrupted_copy()
    break_it, said = DAMAGES[damage]
    break_it(Path("runs/again/checkpoint-9"))
    capsys.readouterr()
    assert train("train.output_dir=runs/again", "--resume") == 0
    text = capsys.readouterr().err
    assert "passing over checkpoint-9: " in text
    assert said in text
    assert "continuing from runs/again/checkpoint-6 at step 6" in text
    assert_equal("again", "straight")
    require_complete(Path("runs/again/checkpoint-9"), check_hashes=True)


def test_damage_everywhere_is_an_error(workspace, capsys):
    interrupted_copy()
    for _, path in checkpoints(Path("runs/again")):
        cut_off(path)
    capsys.readouterr()
    assert train("train.output_dir=runs/again", "--resume") == 2
    expected = "none of its checkpoints can be read (checkpoint-9, checkpoint-6, checkpoint-3)"
    assert expected in message(capsys)


@pytest.fixture
def small_disk(workspace):
    """A file system of its own of 8 MiB, on which runs write."""
    folder = workspace / "runs"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True)
    if done.returncode:
        pytest.skip("mounting a tmpfs needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk):
    try:
        with (disk / "filler").open("wb") as file:
            while True:
                file.write(bytes(1 << 16))
                file.flush()
    except OSError:
        return


def when_there(path, act):
    """Act as soon as a path exists, beside the run."""

    def wait():
        while not path.exists():
            time.sleep(0.002)
        act()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


LONG = ("train.num_train_epochs=20", "train.save_total_limit=2")


def test_a_disk_that_fills_up_ends_the_run_with_its_last_checkpoint_sound(small_disk, capsys):
    thread = when_there(small_disk / "pretrain/checkpoint-6", lambda: fill(small_disk))
    assert train(*LONG) == 2
    thread.join()
    line = message(capsys)
    newest = newest_checkpoint(small_disk / "pretrain")
    assert "runs/pretrain: no space left to write to (" in line
    assert f"The last complete checkpoint is {newest.name}. Free some space" in line
    require_complete(newest, check_hashes=True)
    (small_disk / "filler").unlink()
    assert train(*LONG, "--resume") == 0
    (small_disk / "pretrain").rename(small_disk / "again")
    assert train(*LONG) == 0
    assert_equal("again", "pretrain")


def test_too_little_room_is_said_before_the_first_step(small_disk, capsys):
    with (small_disk / "filler").open("wb") as file:
        file.write(bytes(int(7.4 * 2**20)))
    assert train("train.num_train_epochs=200", "train.save_steps=1") == 2
    line = message(capsys)
    assert "runs/pretrain: no room for its checkpoints: about " in line
    assert "all are kept" in line
    assert not (small_disk / "pretrain/log.jsonl").read_text()


def test_a_full_disk_is_said_before_the_first_step(small_disk, capsys):
    fill(small_disk)
    assert train() == 2
    assert "no space left" in message(capsys).lower()


def test_a_disk_that_is_full_already_is_said_in_one_line(small_disk, capsys):
    fill(small_disk)
    assert train("train.report_to=[tensorboard]") == 2
    expected = "runs/pretrain: no space left to write to (0.0 MiB are free). There is no complete checkpoint yet."
    assert message(capsys).startswith(expected)


def mount_read_only(folder):
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(folder)], check=True)


def test_a_target_that_becomes_read_only_ends_the_run(small_disk, capsys):
    """Where checkpoints are written; then the folder of a run that has not started."""
    writes_to = small_disk / "pretrain/.saving"
    thread = when_there(small_disk / "pretrain/checkpoint-6", lambda: mount_read_only(writes_to))
    assert train(*LONG) == 2
    thread.join()
    subprocess.run(["umount", "-l", str(writes_to)], check=True)
    newest = newest_checkpoint(small_disk / "pretrain")
    expected = (
        f"a file of the run cannot be written: Read-only file system. The last complete checkpoint is {newest.name}"
    )
    assert expected in message(capsys)
    require_complete(newest, check_hashes=True)
    mount_read_only(small_disk / "other")
    assert train("train.output_dir=runs/other") == 2
    assert "cannot write to" in message(capsys)
    subprocess.run(["umount", "-l", str(small_disk / "other")], check=True)


def test_two_runs_in_one_folder_do_not_meet(workspace, capsys):
    Path("runs/pretrain").mkdir(parents=True)
    with run_lock(Path("runs/pretrain")):
        assert train() == 2
        assert f"runs/pretrain: another run writes here (process {os.getpid()} on " in message(capsys)
    assert train() == 0


@pytest.fixture
def bad_image(monkeypatch):
    """Make one image come out as something else, wherever it is opened: `act(pixels)`."""
    open_image = ImageTransform.open

    def choose(name, act):
        def opened(self, source, *given, **named):
            pixels = open_image(self, source, *given, **named)
            return act(pixels) if name in str(source) else pixels

        monkeypatch.setattr(ImageTransform, "open", opened)

    return choose


def with_nan(pixels):
    pixels = pixels.clone()
    pixels[1, 3, 3] = float("nan")
    return pixels


PLAIN = (
    "train.per_device_train_batch_size=1",
    "model.projector.standardize=false",
    "model.projector.initial_scale=null",
)


def a_record_a_line():
    records = json.loads(Path("captions.json").read_text())
    Path("captions.json").write_text("[" + ",\n".join(map(json.dumps, records)) + "]")


def test_a_nan_in_a_pixel_changes_no_weight_and_is_named(workspace, bad_image, capsys):
    a_record_a_line()
    bad_image("4.png", with_nan)
    assert train(*PLAIN) == 0
    text = capsys.readouterr().err
    assert "the loss is nan; its records: captions.json:5. This step changes no weight." in text
    assert "2 steps were not finite and changed no weight" in text
    assert all(torch.isfinite(value).all() for value in projector("pretrain").values())


def test_the_log_has_numbers_again_after_a_step_that_is_not_finite(workspace, bad_image):
    a_record_a_line()
    bad_image("4.png", with_nan)
    measured = ("train.metric_for_best_model=train_loss", "train.eval_steps=5", "train.save_steps=5")
    assert train(*PLAIN, *measured, "train.max_steps=10") == 0
    entries = read_log(Path("runs/pretrain/log.jsonl"))
    losses = [entry["loss"] for entry in entries if "loss" in entry]
    bad = [number for number, loss in enumerate(losses) if loss is None]
    assert (len(losses), len(bad)) == (10, 1)
    assert bad[0] < 9
    means = [entry["train_loss"] for entry in entries if "train_loss" in entry]
    halves = (losses[:5], losses[5:])
    assert means == pytest.approx([statistics.fmean(loss for loss in half if loss is not None) for half in halves])


def test_adalora_keeps_its_budget_over_a_step_that_is_not_finite(workspace, bad_image, capsys):
    assert train("train.save_steps=0", "train.max_steps=1") == 0
    adapter = "model.adapter={kind: adalora, init_r: 4, target_r: 2, tinit: 1, tfinal: 1, deltaT: 1}"
    bad_image("4.png", with_nan)
    single = ("train.per_device_train_batch_size=1", "train.max_steps=12", "train.max_nonfinite_steps=1")
    assert main(["finetune", "finetune.yaml", adapter, *single]) == 0
    assert "1 step was not finite and changed no weight" in capsys.readouterr().err
    tensors = load_file("runs/finetune/adapter/adapter_model.safetensors")
    assert all(torch.isfinite(value).all() for value in tensors.values())


def test_nan_in_several_steps_in_a_row_ends_the_run(workspace, bad_image, capsys):
    assert train(*PLAIN, "train.max_steps=4", "train.output_dir=runs/short", "train.lr_scheduler_type=constant") == 0
    step = [0]

    def later(pixels):
        step[0] += 1
        return with_nan(pixels) if step[0] > 4 else pixels

    bad_image(".png", later)
    capsys.readouterr()
    assert train(*PLAIN, "train.lr_scheduler_type=constant", "train.save_steps=4") == 2
    line = message(capsys)
    assert line.startswith("runs/pretrain: step 7: the loss is nan; its records: captions.json:")
    assert "That were 3 steps in a row (train.max_nonfinite_steps=2); checkpoint-4 is from before." in line
    found, expected = (load_file(f"runs/{run}/checkpoint-4/projector.safetensors") for run in ("pretrain", "short"))
    assert all(torch.equal(found[key], value) for key, value in expected.items())


def test_an_infinite_gradient_names_the_weights(workspace, capsys, monkeypatch):
    """The loss is finite: the square root of 0 has an infinite slope."""
    from mmtune.models.vlm import VisionLanguageModel

    project = VisionLanguageModel.project
    monkeypatch.setattr(
        VisionLanguageModel,
        "project",
        lambda self, features: project(self, features) + (project(self, features) * 0).abs().sqrt(),
    )
    assert train(*PLAIN, "train.max_nonfinite_steps=0") == 2
    assert "step 1: the gradient's norm is nan (projector.layers.0.weight and 3 more); its records:" in message(capsys)


def test_accumulated_batches_are_named_apart(workspace, bad_image, capsys):
    a_record_a_line()
    bad_image("4.png", with_nan)
    assert train(*PLAIN, "train.gradient_accumulation_steps=5") == 0
    assert "the loss is nan; its records: captions.json:5. This step" in capsys.readouterr().err


def test_a_killed_worker_is_said(workspace, bad_image, capsys):
    parent = os.getpid()

    def die(pixels):
        if os.getpid() != parent:
            time.sleep(0.3)  # let the checkpoint of an earlier step be written
            os.kill(os.getpid(), signal.SIGKILL)
        return pixels

    assert train("train.save_steps=0", "train.output_dir=runs/first") == 0
    order = [entry["step"] for entry in read_log(Path("runs/first/log.jsonl"))]
    assert order
    bad_image("4.png", die)
    capsys.readouterr()
    assert train(*PLAIN, "train.dataloader_num_workers=1", "train.save_steps=1") == 2
    line = message(capsys)
    assert "a data worker (process " in line
    assert "Lower train.dataloader_num_workers (now 1)" in line
    newest = newest_checkpoint(Path("runs/pretrain"))
    assert (f"--resume continues from {newest.name}." if newest else "There is no checkpoint yet.") in line


def send(number, when):
    return when_there(when, lambda: os.kill(os.getpid(), number))


@pytest.mark.parametrize(
    ("number", "code", "name", "workers"), [(signal.SIGINT, 130, "Ctrl-C", 2), (signal.SIGTERM, 143, "SIGTERM", 0)]
)
def test_a_signal_saves_and_ends_the_run(workspace, capsys, number, code, name, workers):
    changes = (*LONG, "train.save_steps=7", f"train.dataloader_num_workers={workers}")
    assert train(*changes, "train.output_dir=runs/straight") == 0
    before = signal.getsignal(number)
    capsys.readouterr()
    thread = send(number, Path("runs/pretrain/checkpoint-14"))
    assert train(*changes) == code
    thread.join()
    assert signal.getsignal(number) is before
    newest = newest_checkpoint(Path("runs/pretrain"))
    text = capsys.readouterr().err
    assert f"{name}: the run is saved after this step and ends; once more ends it at once" in text
    assert f"mmtune: {name}: saved {newest}; --resume continues" in text
    assert train(*changes, "--resume") == 0
    assert_equal("pretrain", "straight")


def run_main(argv):
    """In a process of its own."""
    torch.set_num_threads(1)
    os._exit(main(argv))


def test_a_second_signal_ends_it_at_once(workspace, bad_image):
    """While a step hangs on an image."""
    context = multiprocessing.get_context("fork")

    def hang(pixels):
        Path("hanging").touch()
        time.sleep(60)
        return pixels

    bad_image(".png", hang)
    process = context.Process(target=run_main, args=(["pretrain", "pretrain.yaml", *PLAIN],))
    process.start()
    while not Path("hanging").exists():
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGTERM)
    time.sleep(0.3)
    assert process.is_alive()
    os.kill(process.pid, signal.SIGTERM)
    process.join(20)
    assert process.exitcode == -signal.SIGTERM


OUT_OF_MEMORY = """
import resource, sys
import psutil
from mmtune.cli import main
import mmtune.training.run
used = psutil.Process().memory_info().vms
resource.setrlimit(resource.RLIMIT_AS, (used + 300 * 2**20,) * 2)
sys.exit(main(sys.argv[1:]))
"""


def test_running_out_of_memory_says_what_to_change(workspace):
    records = [{"conversations": [{"from": "human", "value": "Go"}, {"from": "gpt", "value": "on " * 700}]}] * 64
    Path("dialogues.json").write_text(json.dumps(records))
    assert train("train.save_steps=0", "train.max_steps=1") == 0
    changes = ["data.max_length=4096", "train.per_device_train_batch_size=64"]
    command = [sys.executable, "-c", OUT_OF_MEMORY, "finetune", "finetune.yaml", *changes]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    line = done.stderr.splitlines()[-1]
    assert done.returncode == 2, done.stderr
    assert line.startswith("mmtune: runs/finetune: out of memory at step 1, in a batch of ")
    assert re.search(r"tokens and 0 images \(planned: \d+\.\d\d GiB, \d+\.\d\d GiB were there\)", line)
    assert re.search(
        r"train.gradient_checkpointing=true saves \d+\.\d\d GiB; train.per_device_train_batch_size=1 ", line
    )
    assert line.endswith("There is no checkpoint yet.")
