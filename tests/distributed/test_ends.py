"""A run of two processes ends as a whole: by a signal with a checkpoint, by an error with one message, by a death."""

import json
import signal
import time
from pathlib import Path

import pytest
from launching import LONGEST, launched, run_pair

from mmtune.cli import main
from mmtune.run_folder import is_complete, newest_checkpoint
from mmtune.training.callbacks import read_log

SOON = 60
SHORT = ("train.per_device_train_batch_size=1", "train.gradient_accumulation_steps=1", "train.save_steps=0")
UNFITTED = ("model.projector.standardize=false", "model.projector.initial_scale=null")


def sft(name, *changes):
    return ["sft", "mixed.yaml", f"train.output_dir=runs/{name}", "train.max_steps=4", *SHORT, *changes]


def seconds_since_befallen():
    return time.time() - float(Path("befallen").read_text())


def test_errors_are_said_once_and_a_signal_to_one_process_saves_the_run_of_all(mixed):
    records = json.loads(Path("mixed.json").read_text())
    Path("bad.json").write_text(json.dumps([*records, {"conversations": [{"from": "human", "value": "Hm?"}]}]))
    runs = [
        [sft("signalled"), "SIGTERM"],
        [sft("signalled", "--resume"), None],
        [sft("bad", "data.train=[{path: bad.json}]"), None],
        [sft("streamed", "data.train=[{path: mixed.json, stream: true}]", *UNFITTED), None],
        [sft("uneven", "train.gradient_accumulation_steps=1", "train.global_batch_size=3"), None],
        [sft("full of memory"), "out of memory"],
    ]
    assert run_pair(mixed, runs) != 0
    assert seconds_since_befallen() < SOON
    output = Path("output.txt").read_text()
    for number in (0, 1):  # torchrun ends rank 0 when rank 1 has ended
        assert json.loads(Path(f"codes-{number}.json").read_text())[:5] == [143, 0, 2, 2, 2], output
    assert output.count("mmtune: SIGTERM: saved runs/signalled/checkpoint-2; --resume continues\n") == 1
    assert [entry["step"] for entry in read_log(Path("runs/signalled/log.jsonl"))] == [1, 2, 3, 4]
    assert is_complete(Path("runs/signalled"))
    lines = output.splitlines()
    (bad,) = [line for line in lines if line.startswith("mmtune: bad.json:")]
    assert "answer" in bad
    told = "mmtune: data.train: a stream is read by one process (got 2). Start one, or leave stream out."
    assert lines.count(told) == 1
    told = "mmtune: train.global_batch_size: must be a multiple of 2 for 2 processes of"
    assert sum(line.startswith(told) for line in lines) == 1
    (memory,) = [line for line in lines if line.startswith("mmtune: ") and "memory" in line]
    assert memory.startswith("mmtune: [rank 1] runs/full of memory: out of memory at step 2, in a batch of ")
    told = "error: another process of this run has ended, so it ends: its own message says why. There is no checkpoint"
    assert told in output


def test_a_process_that_is_killed_ends_the_run_soon(mixed):
    assert run_pair(mixed, [[sft("killed", "train.save_steps=1"), "SIGKILL"]]) != 0
    assert seconds_since_befallen() < SOON
    output = Path("output.txt").read_text()
    assert "its own message says why. --resume continues from checkpoint-1.\n" in output
    assert newest_checkpoint(Path("runs/killed")).name == "checkpoint-1"
    assert "Traceback" not in output.partition("torch/distributed/elastic")[0]


def test_torchrun_that_is_told_to_end_leaves_a_checkpoint(mixed):
    log = Path("runs/long/log.jsonl")
    process = launched(mixed, "-m", "mmtune", *sft("long", "train.max_steps=100000", "train.logging_steps=1"))
    try:
        began = time.monotonic()
        while not read_log(log) and process.poll() is None and time.monotonic() - began < LONGEST:
            time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        told = time.monotonic()
        process.wait(SOON)
    finally:
        process.kill()
    output = Path("output.txt").read_text()
    newest = newest_checkpoint(Path("runs/long"))
    assert newest is not None, output
    assert output.count(f"mmtune: SIGTERM: saved {newest}; --resume continues\n") == 1, output
    assert time.monotonic() - told < SOON


@pytest.mark.parametrize("rank", [0, 1])
def test_a_verb_that_does_not_train_is_for_one_process(monkeypatch, capsys, rank):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setattr("mmtune.cli.SECONDS_TO_SAY_WHY", 0)
    assert main(["configs", "list"]) == 2
    told = (
        "mmtune configs: runs in one process (got 2). Start it without torchrun, which is for pretrain, finetune, "
        "sft, eval.\n"
    )
    assert capsys.readouterr().err == ("" if rank else told)


def test_a_config_that_is_wrong_is_said_by_the_first_process_of_a_machine(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("mmtune.cli.SECONDS_TO_SAY_WHY", 0)
    said = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("LOCAL_RANK", rank)
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / f"error-{rank}.json"))
        assert main(["sft", "absent.yaml"]) == 2
        said.append(capsys.readouterr().err)
    assert said[0].startswith("mmtune: absent.yaml: ")
    assert said[1] == ""
    told = json.loads((tmp_path / "error-0.json").read_text())["message"]["extraInfo"]["py_callstack"]
    assert f"mmtune: {told}\n" == said[0]
    assert not (tmp_path / "error-1.json").exists()
