"""What only a CUDA device can show: its kernels train as the CPU does."""

import copy

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mmtune.cli import main
from mmtune.data.collate import collate, collate_joined
from mmtune.models.adapters import attach_adapter
from mmtune.models.attention import use_blockwise_attention
from mmtune.models.fused_lora import fuse_lora
from mmtune.models.isolation import leak_between_samples
from mmtune.models.liger import use_liger_kernels
from mmtune.models.vlm import VisionLanguageModel
from mmtune.models.work import matmul_rate

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
SHAPE = {"vocab_size": 256, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2}


def model_of(dtype):
    torch.manual_seed(0)
    config = LlamaConfig(**SHAPE, num_attention_heads=4, num_key_value_heads=2)
    llm = LlamaForCausalLM(config).to("cuda", dtype).requires_grad_(False)
    return VisionLanguageModel(attach_adapter(llm, {"kind": "lora", "r": 8, "init_lora_weights": False})).train()


def samples():
    torch.manual_seed(1)
    ids = [torch.randint(0, 256, (length,)) for length in (70, 33, 128)]
    return [{"input_ids": row, "labels": row.masked_fill(torch.arange(len(row)) < 20, -100)} for row in ids]


def loss_and_gradients(model, batch):
    model.zero_grad()
    batch = {name: value.cuda() if torch.is_tensor(value) else value for name, value in batch.items()}
    loss = model(**batch)["loss"]
    loss.backward()
    gradients = [value.grad.flatten().float() for value in model.parameters() if value.grad is not None]
    return float(loss), torch.cat(gradients)


@pytest.mark.parametrize("change", ["joined", "fused", "liger"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_each_kernel_gives_the_loss_and_gradients_without_it(change, dtype):
    model = model_of(dtype)
    with torch.autocast("cuda", torch.bfloat16, enabled=dtype == torch.bfloat16):
        loss, gradients = loss_and_gradients(model, collate(samples()))
        other, batch = copy.deepcopy(model), collate(samples())
        if change == "joined":
            assert use_blockwise_attention(other.base_llm)
            assert leak_between_samples(other) is None
            batch = collate_joined(samples())
        elif change == "fused":
            assert fuse_lora(other) == 14
        else:
            pytest.importorskip("liger_kernel")
            use_liger_kernels(other.base_llm, torch.device("cuda"))
        found = loss_and_gradients(other, batch)
    tolerance = 1e-4 if dtype == torch.float32 else 3e-2
    assert found[0] == pytest.approx(loss, rel=tolerance)
    assert (found[1] - gradients).norm() / gradients.norm() < tolerance


def test_a_run_is_measured_on_the_gpu(config_file, data_file, record, capsys):
    data_file(record("<image>", "A cat.", image="1.png"))
    assert main(["bench", config_file("train.device=auto"), "--steps", "2"]) == 0
    shown = capsys.readouterr().out
    assert torch.cuda.get_device_name() in shown
    assert matmul_rate(torch.device("cuda"), torch.bfloat16) > 1e12
