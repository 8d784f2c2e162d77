"""Whole runs on a CUDA device: they train what the CPU trains, resume bit for bit and answer as on the CPU."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from launching import logged, weights
from training_workspace import make, models, run_answers, workspace

from mmtune.cli import main

__all__ = ["models", "workspace"]
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
GPU = "train.device=auto"
STEADY = ("model.adapter.lora_dropout=0", GPU)
BF16 = "model.llm.dtype=bfloat16"
KINDS = {
    "fp32": (),
    "bf16": (BF16,),
    "fp16": ("model.llm.dtype=float16",),
    "nf4": (BF16, "model.llm.quantization=nf4"),
    "int8": (BF16, "model.llm.quantization=int8"),
    "nf4 8 GB": (
        BF16, "model.llm.quantization=nf4", "train.optim=paged_adamw_8bit", "train.gradient_checkpointing=true",
        "data.group_by_length=true", "data.padding_free=false",
    ),
    "packed": (BF16, "data.pack_to_max_length=true"),
    "padded": (BF16, "data.padding_free=false"),
    "liger": (BF16, "train.use_liger_kernel=true"),
    "full": (BF16, "model.adapter=null", "model.llm.tune=full", "model.vision.tune=full", "train.learning_rate=1e-3"),
}  # fmt: skip
"""What is trained -> its keys."""


@pytest.fixture
def ready(workspace):
    """The workspace with a projector to start from, trained on the CPU."""
    assert main(["pretrain", "pretrain.yaml", "train.save_steps=0"]) == 0
    return workspace


def made(name, *changes):
    if "model.adapter=null" in changes:
        changes = [each for each in changes if "lora_dropout" not in each]
    return make(name, *changes)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_on_the_gpu_trains_what_the_cpu_trains(ready, kind):
    if kind == "liger":
        pytest.importorskip("liger_kernel")
    changes = tuple(each for each in KINDS[kind] if "dtype" not in each and "liger" not in each)
    cpu = made("cpu", *STEADY, *changes, "train.device=cpu")
    gpu = made("gpu", *STEADY, *KINDS[kind])
    tolerance = 1e-4 if kind == "fp32" else 3e-2
    assert logged(gpu, "loss") == pytest.approx(logged(cpu, "loss"), rel=tolerance)
    if kind == "fp32":
        assert run_answers(gpu) == run_answers(cpu)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_on_the_gpu_goes_on_bit_for_bit(ready, kind):
    if kind == "liger":
        pytest.importorskip("liger_kernel")
    straight = made("straight", *KINDS[kind], GPU, "train.save_steps=3")
    shutil.copytree(straight / "checkpoint-3", "runs/again/checkpoint-3")
    made("again", *KINDS[kind], GPU, "train.save_steps=3", "--resume")
    assert logged(Path("runs/again"), "loss") == logged(straight, "loss")[-len(logged(Path("runs/again"), "loss")) :]
    found, expected = weights(Path("runs/again")), weights(straight)
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


@pytest.mark.parametrize("engine", ["zero1", "zero2", "zero2_offload", "zero3", "zero3_offload"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_engine_on_one_gpu_trains_what_none_does(ready, engine, dtype):
    keys = (*STEADY, f"model.llm.dtype={dtype}", "data.pack_to_max_length=true", "train.max_steps=4")
    plain = made("plain", *keys)
    key = f"train.deepspeed={engine}"
    command = ["finetune", "finetune.yaml", "train.output_dir=runs/engine", "train.save_steps=0", *keys, key]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "1", "-m", "mmtune"]
    done = subprocess.run([*torchrun, *command], env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    tolerance = 1e-4 if dtype == "float32" else 3e-2
    assert logged(Path("runs/engine"), "loss") == pytest.approx(logged(plain, "loss"), rel=tolerance)
    assert weights(Path("runs/engine")).keys() == weights(plain).keys()


def test_an_export_is_read_back_on_the_cpu_and_answers_as_on_the_gpu(ready):
    assert main(["export", str(made("gpu", *STEADY)), "--format", "hf-llava", "--output", "out"]) == 0
