"""Two processes with DeepSpeed's ZeRO or with FSDP2 train what one process trains; their runs resume bit for bit."""

import re
from pathlib import Path

import pytest
import torch
from launching import DROPOUT, FULL, NO_DROPOUT, logged, train_pair, weights

from mmtune.cli import main
from mmtune.run_folder import read_json
from mmtune.schema_sharding import DEEPSPEED_SETTINGS

SHORT = ("train.max_steps=4", "train.per_device_train_batch_size=1", "train.save_steps=0")
PACKED = (NO_DROPOUT, "data.pack_to_max_length=true", "data.max_length=160")
WATCHED = (
    NO_DROPOUT,
    "data.cache_vision_features=true",
    "data.validation=[{path: held.json}]",
    "train.eval_steps=2",
    "train.metric_for_best_model=eval_loss",
    "train.load_best_model_at_end=true",
    "sample={every_steps: 2, questions: ['Hi', 'Sure?'], max_new_tokens: 4}",
)

KINDS = {
    "packed": (PACKED, (*DEEPSPEED_SETTINGS, "fsdp")),
    "watched": (WATCHED, ("zero3", "fsdp")),
    "full": ((*FULL, "train.gradient_checkpointing=true"), ("fsdp",)),
    "nf4": ((*PACKED, "model.llm.quantization=nf4"), ("zero3",)),
}
"""What is trained -> its keys and the engines that it is trained with, in two processes."""

CASES = [(kind, engine) for kind, (_, engines) in KINDS.items() for engine in engines]
RESUMED = ("zero2_offload", "zero3", "fsdp")


def key_of(engine):
    return "train.fsdp=true" if engine == "fsdp" else f"train.deepspeed={engine}"


def arguments(name, accumulation, *changes):
    keys = [f"train.output_dir=runs/{name}", f"train.gradient_accumulation_steps={accumulation}"]
    return ["sft", "mixed.yaml", *keys, *SHORT, *changes]


@pytest.fixture(scope="module")
def runs(mixed):
    """All runs of two processes, made in one launch; the folder that they are in."""
    argv = [arguments(f"{kind} {engine}", 2, *KINDS[kind][0], key_of(engine)) for kind, engine in CASES]
    for engine in RESUMED:
        keys = (*DROPOUT, key_of(engine))
        argv.append(arguments(f"straight {engine}", 1, *keys))
        argv.append(arguments(f"resumed {engine}", 1, *keys, "--resume", f"runs/straight {engine}/checkpoint-2"))
    train_pair(mixed, argv)
    return mixed / "runs"


@pytest.fixture(scope="module")
def of_one(runs):
    """Return the same run of one process without DeepSpeed, trained once."""

    def train(kind):
        if not (runs / kind).exists():
            assert main(arguments(kind, 4, *KINDS[kind][0])) == 0
        return runs / kind

    return train


@pytest.mark.parametrize(("kind", "engine"), CASES)
def test_two_processes_train_what_one_does(runs, of_one, kind, engine):
    one, two = of_one(kind), runs / f"{kind} {engine}"
    assert logged(two, "loss") == pytest.approx(logged(one, "loss"), rel=1e-5)
    assert logged(two, "grad_norm") == pytest.approx(logged(one, "grad_norm"), rel=1e-4)
    found, expected = weights(two), weights(one)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == torch.float32
        assert torch.allclose(found[name], value, rtol=1e-4, atol=1e-5), name


@pytest.mark.parametrize("engine", KINDS["watched"][1])
def test_what_is_measured_and_answered_is_that_of_one_process(runs, of_one, engine):
    one, two = of_one("watched"), runs / f"watched {engine}"
    assert logged(two, "eval_loss") == pytest.approx(logged(one, "eval_loss"), rel=1e-5)
    assert (two / "samples.jsonl").read_text() == (one / "samples.jsonl").read_text()
    assert read_json(two / "manifest.json")["best"]["step"] == read_json(one / "manifest.json")["best"]["step"]


@pytest.mark.parametrize("engine", RESUMED)
def test_a_resumed_run_ends_as_a_straight_one_bit_for_bit(runs, engine):
    straight, resumed = weights(runs / f"straight {engine}"), weights(runs / f"resumed {engine}")
    assert straight.keys() == resumed.keys()
    assert all(torch.equal(resumed[name], value) for name, value in straight.items())
    assert logged(runs / f"resumed {engine}", "loss") == logged(runs / f"straight {engine}", "loss")[2:]


@pytest.mark.parametrize("engine", RESUMED)
def test_a_checkpoint_holds_whole_weights_beside_what_the_engine_keeps(runs, engine, capsys):
    checkpoint = runs / f"straight {engine}" / "checkpoint-2"
    listed = read_json(checkpoint / "manifest.json")["files"]
    parts = {name for name in listed if name.startswith("engine/")}
    assert any("rank_1" in name for name in parts) == (engine != "fsdp")
    assert not any(name.endswith(".py") for name in listed)
    assert main(["chat", str(checkpoint), "--prompt", "Hi", "--max-new-tokens", "3"]) == 0
    assert main(arguments(f"from {engine}", 1, *DROPOUT[:1], f"model.init_from={checkpoint}")) == 0


def test_fsdp_leaves_each_process_a_part_of_all_weights(runs):
    said = re.findall(r"FSDP has split the weights: ([\d.]+) MiB of ([\d.]+) on each", Path("output.txt").read_text())
    assert len(said) == sum(engine == "fsdp" for _, engine in CASES) + 2
    assert all(float(part) < 0.6 * float(whole) for part, whole in said)
