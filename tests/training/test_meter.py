"""The figures of a run's speed: counted right, and in its log."""

import json
from pathlib import Path

import pytest
import torch
from training_workspace import fit
from transformers import GPT2Config, GPT2LMHeadModel

from mmtune.build import build_parts
from mmtune.build_data import build_dataset, build_reader
from mmtune.cli import main
from mmtune.config import load_config
from mmtune.data.collate import collate, collate_joined
from mmtune.models.vlm import VisionLanguageModel
from mmtune.models.work import StepWork
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
        "train.save_steps=2",
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


def test_other_architectures_are_counted_without_a_word(workspace):
    """A meter must not stop a training: GPT-2 names its blocks and heads in its own way."""
    model = VisionLanguageModel(GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4)))
    assert StepWork(model).per_pair == 2 * 4 * 32 * 3
    assert StepWork(model).flops([10], 0, 4) > 0


def test_the_model_is_left_without_hooks(workspace):
    config = load_config("pretrain.yaml", ["train.max_steps=1", "train.save_steps=0"], "pretrain")
    parts = build_parts(config.model, torch.device("cpu"))
    dataset, _ = build_dataset(config, build_reader(config.model))
    fit(parts, config, dataset)
    modules = [parts.model, parts.model.vision, parts.model.projector, parts.model.base_llm.get_decoder()]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in modules)


def test_laps_of_a_stopwatch_add_up():
    watch = Stopwatch(torch.device("cpu"))
    for part in ("a", "b", "a"):
        watch.lap(part)
    first, last = watch.laps[0][1], watch.laps[-1][2]
    seconds = watch.read()
    assert seconds.keys() == {"a", "b"}
    assert sum(seconds.values()) == pytest.approx(last - first)
    assert watch.read() == {}
