"""Two processes train what one process with twice the accumulation trains; a run of two resumes bit for bit."""

import shutil
from pathlib import Path

import pytest
import torch
from launching import DROPOUT, FULL, NO_DROPOUT, logged, train_pair, weights
from safetensors.torch import load_file

from mmtune.cli import main
from mmtune.run_folder import read_json

SHORT = ("train.num_train_epochs=2", "train.per_device_train_batch_size=1", "train.logging_steps=1")
TEXT = (NO_DROPOUT, "model.vision=null", "model.projector=null", "data.train=[{path: text.json}]")
RUNS = {
    "mixed": (2, (NO_DROPOUT,)),
    "packed": (1, (NO_DROPOUT, "data.pack_to_max_length=true", "data.max_length=160")),
    "text": (2, TEXT),
    "packed text": (1, (*TEXT, "data.pack_to_max_length=true", "data.max_length=128")),
    "full": (2, (*FULL, "train.gradient_checkpointing=true", "train.dataloader_num_workers=1")),
    "gradual": (1, (*FULL, "model.llm.tune={top_layers: 2, unfreeze_every_steps: 2}")),
    "adalora": (2, ("model.adapter={kind: adalora, init_r: 6, target_r: 2, tinit: 1, tfinal: 1, deltaT: 1}",)),
    "watched": (
        3,
        (
            NO_DROPOUT,
            "data.group_by_length=true",
            "data.padding_free=false",
            "data.validation=[{path: held.json}]",
            "train.eval_steps=2",
            "train.metric_for_best_model=eval_loss",
            "train.load_best_model_at_end=true",
            "sample={every_steps: 2, questions: ['Hi', 'Sure?'], max_new_tokens: 4}",
        ),
    ),
}
"""Name -> accumulation of each of two processes, and what else is set."""


def arguments(name, accumulation, *changes):
    keys = [f"train.output_dir=runs/{name}", f"train.gradient_accumulation_steps={accumulation}", *SHORT]
    return ["sft", "mixed.yaml", *keys, *changes]


def two_and_one(name):
    return Path("runs") / f"{name} two", Path("runs") / f"{name} one"


@pytest.fixture(scope="module")
def pair(mixed):
    """All runs of two processes, made in one launch; returns what they wrote to standard error."""
    resumed = ["--resume", "runs/straight/checkpoint-2"]
    argv = [
        *(arguments(f"{name} two", steps, *changes) for name, (steps, changes) in RUNS.items()),
        arguments("straight", 1, *DROPOUT),
        arguments("resumed", 1, *DROPOUT, *resumed),
        arguments("straight", 1, *DROPOUT),
    ]
    train_pair(mixed, argv)
    return Path("output.txt").read_text()


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_train_what_one_does(pair, name):
    (steps, changes), (two, one) = RUNS[name], two_and_one(name)
    assert main(arguments(f"{name} one", 2 * steps, *changes)) == 0
    losses, expected = logged(two, "loss"), logged(one, "loss")
    assert len(losses) >= 4
    assert losses == pytest.approx(expected, rel=1e-5)
    assert logged(two, "grad_norm") == pytest.approx(logged(one, "grad_norm"), rel=1e-4)
    found, wanted = weights(two), weights(one)
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        assert torch.allclose(found[key], value, rtol=1e-4, atol=1e-5), key
    assert read_json(two / "data.json") == read_json(one / "data.json")


def test_what_is_measured_and_answered_is_that_of_one_process(pair):
    two, one = two_and_one("watched")
    assert logged(two, "eval_loss") == pytest.approx(logged(one, "eval_loss"), rel=1e-5)
    assert read_json(two / "best.json")["step"] == read_json(one / "best.json")["step"]
    assert (two / "samples.jsonl").read_text() == (one / "samples.jsonl").read_text()


def test_a_run_of_two_processes_resumes_bit_for_bit(pair):
    straight, resumed = weights(Path("runs/straight")), weights(Path("runs/resumed"))
    assert straight
    assert all(torch.equal(resumed[key], value) for key, value in straight.items())
    state = Path("runs/straight/checkpoint-2/state")
    first, second = (load_file(state / f"{name}.safetensors")["torch"] for name in ("random", "random-1"))
    assert not torch.equal(first, second)


def test_one_process_does_not_continue_the_run_of_two(pair, capsys):
    shutil.copytree("runs/straight/checkpoint-4", "runs/alone/checkpoint-4")
    assert main(arguments("alone", 1, *DROPOUT, "--resume")) == 2
    told = (
        "mmtune: runs/alone/checkpoint-4: was trained by 2 processes (got 1). Start 2 with torchrun, or start another "
        "run from its weights: model.init_from=runs/alone/checkpoint-4.\n"
    )
    assert capsys.readouterr().err.endswith(told)


def test_rank_0_speaks_for_all_and_leaves_the_files_of_one_process(pair):
    lines = [line[20:] for line in pair.splitlines()]
    assert (
        lines.count("2 processes train together, on the CPU: the others wait for rank 0 to prepare the data")
        == len(RUNS) + 2
    )
    assert "[rank 1]" not in pair
    assert lines.count("runs/straight is complete and has this config: nothing to do") == 1
    for name in RUNS:
        two, one = two_and_one(name)
        assert {path.name for path in two.iterdir()} == {path.name for path in one.iterdir()}
    assert read_json(Path("runs/straight/checkpoint-2/manifest.json"))["world_size"] == 2
