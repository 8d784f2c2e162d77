"""The figures of a run's speed: counted right, and in its log."""

import json
from pathlib import Path

import pytest
import torch

from mmtune.cli import main
from mmtune.data.collate import collate, collate_joined
from mmtune.training.meter import PARTS, Stopwatch


def speeds(folder):
    return [json.loads(line)["speed"] for line in Path(folder, "log.jsonl").read_text().splitlines()]


def test_each_line_of_the_log_says_how_fast_its_steps_were(workspace):
    assert main(["pretrain", "pretrain.yaml", "train.num_train_epochs=1"]) == 0
    found = speeds("runs/pretrain")
    assert len(found) == 5
    for speed in found:
        assert speed["seconds"].keys() <= set(PARTS)
        assert {"data", "vision", "projector", "llm_forward", "head", "backward", "optimizer"} <= speed[
            "seconds"
        ].keys()
        assert sum(speed["seconds"].values()) == pytest.approx(speed["seconds_per_step"], rel=1e-3)
        assert speed["padding_share"] == 0
        assert 0 <= speed["data_wait_share"] < 1
        assert 0 < speed["matmul_share"] < 1
        assert speed["peak_memory_bytes"] > 1e8
        samples = speed["samples_per_second"] * speed["seconds_per_step"]
        assert samples == pytest.approx(2, rel=1e-3)


def test_tokens_are_counted_with_images_and_without_padding(workspace):
    assert main(["pretrain", "pretrain.yaml", "train.num_train_epochs=1", "data.padding_free=false"]) == 0
    padded = speeds("runs/pretrain")
    assert main(["pretrain", "pretrain.yaml", "train.num_train_epochs=1", "train.output_dir=runs/joined"]) == 0
    data = json.loads(Path("runs/joined/data.json").read_text())
    for found in (padded, speeds("runs/joined")):
        for key, total in (("tokens", data["num_tokens"]), ("supervised_tokens", data["num_supervised_tokens"])):
            counted = sum(speed[f"{key}_per_second"] * speed["seconds_per_step"] for speed in found)
            assert counted == pytest.approx(total, rel=1e-3)
    assert any(speed["padding_share"] > 0 for speed in padded)


def test_figures_cover_all_steps_since_the_last_line_and_accumulated_batches(workspace):
    changes = [
        "train.logging_steps=2",
        "train.gradient_accumulation_steps=2",
        "train.max_steps=4",
        "train.save_steps=1",
    ]
    assert main(["pretrain", "pretrain.yaml", *changes]) == 0
    found = speeds("runs/pretrain")
    assert len(found) == 2
    assert found[0]["samples_per_second"] * found[0]["seconds_per_step"] == pytest.approx(4, rel=1e-3)
    assert "saving" not in found[1]["seconds"]


@pytest.mark.parametrize("join", [collate, collate_joined])
def test_both_collators_name_the_samples_of_packs(join):
    pack = {"input_ids": torch.arange(5), "labels": torch.arange(5), "position_ids": torch.tensor([0, 1, 0, 1, 2])}
    single = {"input_ids": torch.arange(4), "labels": torch.arange(4), "position_ids": torch.arange(4)}
    assert join([pack, single])["sample_lengths"] == (2, 3, 4)


def test_laps_of_a_stopwatch_add_up():
    watch = Stopwatch(torch.device("cpu"))
    for part in ("a", "b", "a"):
        watch.lap(part)
    first, last = watch.laps[0][1], watch.laps[-1][2]
    seconds = watch.read()
    assert seconds.keys() == {"a", "b"}
    assert sum(seconds.values()) == pytest.approx(last - first)
    assert watch.read() == {}
