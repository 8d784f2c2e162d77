"""A plan's tensors are within 10 % of what a GPU had at its peak: shipped recipes on random weights, two steps each."""

import pytest
import torch

from mmtune.benchmark.bench import bench
from mmtune.config import load_config
from mmtune.shipped import find_config
from mmtune.training.run_plan import plan_of_run

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
PRESETS = {
    "pretrain/llava_internlm2_1_8b_558k": ("train.gradient_accumulation_steps=2",),
    "finetune/llava_internlm2_1_8b_665k_8gb": ("train.gradient_accumulation_steps=4",),
    "sft/internlm2_1_8b_qlora": ("train.gradient_accumulation_steps=4",),
}


@pytest.mark.parametrize("name", PRESETS)
def test_the_plan_is_the_measured_peak(name, monkeypatch):
    verb = name.split("/")[0]
    config = load_config(find_config(name), list(PRESETS[name]), verb)
    plans = []

    def kept(*given):
        plans.append(plan_of_run(*given))
        return plans[-1]

    monkeypatch.setattr("mmtune.training.run.plan_of_run", kept)
    result = bench(config, verb, num_steps=2, num_warmup_steps=1, random_weights=True)
    (plan,) = plans
    assert plan is not None
    peak = result["figures"]["peak_memory_bytes"]
    print(f"{name}: planned {plan.allocated / 2**30:.2f} GiB, measured {peak / 2**30:.2f} GiB")
    assert plan.allocated == pytest.approx(peak, rel=0.1)
