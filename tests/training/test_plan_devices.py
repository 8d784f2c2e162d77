"""What a plan says of several devices: bytes of each, steps, and the time by a rate that was measured on one."""

import json
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.profiler import ProfilerActivity, profile

from mmtune.build import build_parts
from mmtune.cli import main
from mmtune.config import load_config
from mmtune.sizes import GIB
from mmtune.training.cards import CARDS
from mmtune.training.plan_model import as_trained, planned_rows
from mmtune.training.planning import plan_run, report_lines
from mmtune.training.spread import Held, Spread, spread_of
from mmtune.training.steps import num_batches_per_epoch, num_optimizer_steps

RATE = ("--tokens-per-second", "1000")
SEVERAL = ("--gpus", "4", "--gpu", "RTX 4090")


def config_of(*changes):
    return load_config("finetune.yaml", ["model.init_from=null", *changes], "sft")


def planned(capsys, *argv):
    assert main(["plan", "finetune.yaml", "train.device=auto", "--json", *argv]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def group(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("changes", [(), ("model.llm.tune=full", "model.adapter=null")])
def test_buckets_are_what_ddp_makes_and_the_rest_is_that_of_one_device(workspace, group, changes):
    config = config_of(*changes)
    plan, alone = (
        plan_run(config, gpu_memory=None, reads_data=False, probes=False, num_devices=number).plan for number in (2, 1)
    )
    model = as_trained(config, build_parts(config.model, torch.device("cpu")).model, ()).model
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        ddp = DistributedDataParallel(model)
    made = sum(event.self_cpu_memory_usage for event in profiler.key_averages())
    assert plan.held.buckets == pytest.approx(made, rel=0.02)
    assert plan.held.buckets == sum(value.nbytes for value in ddp.parameters() if value.requires_grad)
    assert plan.total - alone.total == plan.held.buckets
    assert alone.held.buckets == 0


def test_zero_splits_what_each_stage_splits():
    """1,000 numbers train in float32 and 500 are frozen in bfloat16, which is computed in; AdamW keeps two states."""
    whole, sizes = Held(weights=5000, constants=10, gradients=4000, optimizer=8000), (1000, 2)
    states = (8000 + 4000) // 4
    assert Spread(4, 1).held(whole, *sizes) == Held(3000, 10, 2000, states)
    assert Spread(4, 2, bucket_numbers=50, overlaps=True).held(whole, *sizes) == Held(3000, 10, 500, states, 200)
    assert Spread(4, 3, live_numbers=600).held(whole, *sizes) == Held(750, 10, 500, states, 1200)
    offloaded = Spread(4, 3, offloads_states=True, offloads_weights=True, live_numbers=600).held(whole, *sizes)
    assert offloaded == Held(0, 10, 0, 0, 1200, main_memory=states + 1000 + 750)
    assert Spread(4).held(whole, *sizes) == Held(5000, 10, 4000, 8000, buckets=4000)
    assert Spread().held(whole, *sizes) == whole


def test_the_settings_of_deepspeed_are_read():
    zero = {"stage": 3, "reduce_bucket_size": "auto", "overlap_comm": True, "offload_optimizer": {"device": "cpu"}}
    spread = spread_of(8, {"zero_optimization": zero}, 64)
    assert spread == Spread(8, 3, True, False, 4096, True, 1_000_000_000)
    assert spread.name == "ZeRO-3 with offload"
    assert spread_of(8, None, 64) == Spread(8)


def test_what_is_offloaded_is_said_beside_the_peak(workspace, capsys):
    offload = (*SEVERAL, "train.deepspeed=zero2_offload", "model.llm.dtype=bfloat16", "train.optim=adamw_torch")
    found = planned(capsys, *offload)
    trained = sum(part["trained"] for part in found["parts"].values())
    assert found["main_memory_bytes"] >= trained * 12 // 4  # a quarter of weights and two states in float32
    assert not found["peak_bytes"]["optimizer"]
    assert main(["plan", "finetune.yaml", "train.device=auto", *offload]) == 0
    assert "beside it, in the machine's memory" in capsys.readouterr().out
    assert planned(capsys, *SEVERAL)["main_memory_bytes"] == 0


@pytest.mark.parametrize("changes", [(), ("train.global_batch_size=16", "train.gradient_accumulation_steps=1")])
def test_steps_are_those_of_a_run_of_as_many_processes(workspace, capsys, monkeypatch, changes):
    found = planned(capsys, "--gpus", "4", "train.num_train_epochs=40", "train.gradient_accumulation_steps=2", *changes)
    monkeypatch.setenv("WORLD_SIZE", "4")
    steps = found["split"]["gradient_accumulation_steps"]
    config = config_of("train.num_train_epochs=40", f"train.gradient_accumulation_steps={steps}")
    assert found["optimizer_steps"] == num_optimizer_steps(config, num_batches_per_epoch(config, planned_rows(config)))
    assert steps == 2


def test_the_batch_that_is_chosen_is_a_share_of_the_global_one(workspace, capsys):
    auto = (
        "train.per_device_train_batch_size=auto",
        "train.global_batch_size=24",
        "train.gradient_accumulation_steps=1",
    )
    split = planned(capsys, *SEVERAL, *auto)["split"]
    assert 4 * split["per_device_train_batch_size"] * split["gradient_accumulation_steps"] == 24


def test_the_time_is_by_the_rate_of_one_the_number_and_the_efficiency(workspace, capsys):
    found = planned(capsys, *SEVERAL, *RATE, "--efficiency", "0.8", "train.num_train_epochs=3")
    tokens = 3 * int(planned_rows(config_of()).lengths.sum())
    rate = found["rate"]
    assert (rate["run_tokens"], rate["tokens_per_second_of_all"]) == (tokens, pytest.approx(3200))
    assert rate["run_seconds"] == pytest.approx(tokens / 3200)
    assert found["target"]["memory_bytes"] == 24564 << 20
    assert found["target"]["devices"] == 4
    full = planned(capsys, *SEVERAL, *RATE, "--no-data", "train.max_steps=10", "train.gradient_accumulation_steps=2")
    assert full["rate"]["run_tokens"] == 10 * 2 * 4 * sum(full["longest_batch"]["lengths"])
    assert full["rate"]["efficiency"] == 0.9
    assert planned(capsys, "--no-data", *RATE)["rate"]["run_seconds"] is None


def test_the_text_says_devices_rate_and_that_it_is_estimated(workspace, capsys):
    assert main(["plan", "finetune.yaml", "train.device=auto", *SEVERAL, *RATE]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    text = " ".join(text.split())
    assert text.startswith("plan for 4 x rtx-4090 with 24.0 GiB, DDP; shapes of")
    assert "at the peak of a step on each device" in text
    assert "x 4 devices =" in text
    assert "tokens at 3,600 tokens/s (1,000 given x 4 x efficiency 0.9); estimated" in text


def test_a_measured_rate_is_read_from_a_benchmark(workspace, capsys):
    bench = {"device": "some card", "figures": {"tokens_per_second": 250.0}}
    Path("bench.json").write_text(json.dumps(bench))
    report = planned(capsys, "--gpus", "2", "--bench", "bench.json")["rate"]
    assert (report["tokens_per_second"], report["source"]) == (250.0, "measured on some card")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--gpu", "rtx-4091"), "mmtune: --gpu: unknown name 'rtx-4091'. Did you mean 'rtx-4090'? Known: a10, "),
        (("--gpu", "h200", "train.device=cpu"), "mmtune: --gpu: train.device is cpu. Leave one of the two out."),
        (("--bench", "nowhere.json"), "mmtune: --bench: nowhere.json: cannot be read: No such file or directory"),
        (("--bench", "dialogues.json"), "mmtune: --bench: dialogues.json: has no figures of a benchmark. Make one "),
        (
            ("--gpus", "3", "train.global_batch_size=32"),
            "mmtune: train.global_batch_size: must be a multiple of 6 for --gpus 3 (got 32).",
        ),
    ],
)
def test_what_cannot_be_planned_is_one_line(workspace, capsys, argv, message):
    assert main(["plan", "finetune.yaml", "--no-data", "train.device=auto", *argv]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(message)


def test_cards_have_the_memory_that_their_name_says():
    for name, mib in CARDS.items():
        if name.endswith("gb"):
            assert mib / 1024 == pytest.approx(int(name.rpartition("-")[2].removesuffix("gb")), rel=0.01)


def test_what_one_card_just_holds_each_of_several_does_not(workspace):
    config = config_of("train.device=auto")

    def plan(memory, number):
        return plan_run(config, gpu_memory=memory, reads_data=False, probes=False, num_devices=number)

    just_enough = plan(8, 1).plan.total / GIB
    assert plan(just_enough, 1).plan.fits
    report = plan(just_enough, 8)
    assert report.plan.fits is False
    assert "does not fit" in "\n".join(report_lines(report))
