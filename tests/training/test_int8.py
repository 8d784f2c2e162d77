"""LLM.int8: an 8-bit base in both layouts, trained through its adapter, saved, resumed, asked and merged."""

import logging
import shutil
import subprocess
import sys
from pathlib import Path

import bitsandbytes
import pytest
import torch
from safetensors.torch import load_file

from mmtune.build import load_run
from mmtune.cli import main
from mmtune.models.checkpoint_files import read_weights
from mmtune.models.language import load_llm
from mmtune.models.quantized import dequantized_weights, quiet_bitsandbytes
from mmtune.testing import write_internlm2
from mmtune.training.callbacks import read_log

CPU = torch.device("cpu")
INT8 = ["model.llm.quantization=int8", "train.max_steps=8", "train.save_steps=4"]


def int8_layers(model):
    return [module for module in model.modules() if isinstance(module, bitsandbytes.nn.Linear8bitLt)]


@pytest.fixture(params=["llama", "internlm2"])
def base(request, workspace):
    """Arguments that choose the base model, in the layout of transformers or of InternLM2."""
    if request.param == "llama":
        return []
    return [f"model.llm.name_or_path={write_internlm2('internlm2')}", "model.llm.chat_template=internlm2_chat"]


def merged_by_hand(folder):
    """The weights of a run: its dequantized base with B A scaled added."""
    model = load_run(folder, device=CPU).model
    dense = dequantized_weights(model.base_llm)
    for name, module in model.base_llm.named_modules():
        if isinstance(module, bitsandbytes.nn.Linear8bitLt) and name.endswith(".base_layer"):
            lora = model.base_llm.get_submodule(name.removesuffix(".base_layer"))
            a, b = lora.lora_A["default"].weight, lora.lora_B["default"].weight
            dense[name] = dense[name] + (b @ a) * lora.scaling["default"]
    return {name.replace(".base_layer", "") + ".weight": value.detach() for name, value in dense.items()}


def test_lora_over_int8_trains_resumes_answers_and_merges(base, capsys):
    assert main(["pretrain", "pretrain.yaml", *INT8, *base]) == 0
    assert main(["finetune", "finetune.yaml", *INT8, *base]) == 0
    losses = [entry["loss"] for entry in read_log(Path("runs/finetune/log.jsonl"))]
    assert losses[-1] < losses[0]

    Path("runs/again").mkdir()
    shutil.copytree("runs/finetune/checkpoint-4", "runs/again/checkpoint-4")
    assert main(["finetune", "finetune.yaml", *INT8, *base, "train.output_dir=runs/again", "--resume"]) == 0
    for name in ("projector.safetensors", "adapter/adapter_model.safetensors"):
        straight, again = load_file(f"runs/finetune/{name}"), load_file(f"runs/again/{name}")
        assert all(torch.equal(again[key], value) for key, value in straight.items())

    model = load_run("runs/finetune", device=CPU).model
    assert len(int8_layers(model.base_llm.model)) == 14  # q, k, v, o, gate, up, down of two blocks
    assert all(layer.weight.dtype == torch.int8 for layer in int8_layers(model))
    assert not int8_layers(model.projector)

    capsys.readouterr()
    assert main(["chat", "runs/finetune", "--image", "0.png", "--prompt", "What?", "--max-new-tokens", "3"]) == 0
    assert main(["export", "runs/finetune", "--format", "merged", "--output", "merged"]) == 0
    assert main(["export", "runs/finetune", "--format", "adapter", "--output", "adapter"]) == 0
    printed = capsys.readouterr()
    assert "dequantized base against 8-bit" in printed.err
    assert "MatMul8bitLt" not in printed.err
    exported = dict(read_weights(Path("merged")))
    for name, weight in merged_by_hand("runs/finetune").items():
        torch.testing.assert_close(exported[name], weight, rtol=1e-6, atol=1e-7, msg=name)


def test_int8_weights_are_near_those_of_the_files_and_stay_as_they_are(base, models):
    folder = base[0].partition("=")[2] if base else str(models / "llm")
    options = {"dtype": torch.float32, "device": CPU}
    plain, quantized = load_llm(folder, **options), load_llm(folder, quantization="int8", **options)
    before = dequantized_weights(quantized)
    for name, weight in before.items():
        exact = plain.get_submodule(name).weight
        assert (weight - exact).abs().max() <= exact.abs().max() / 254 * 1.02  # half a step of the largest row
    quantized(torch.arange(12)[None])
    assert all(torch.equal(weight, before[name]) for name, weight in dequantized_weights(quantized).items())


def test_bitsandbytes_is_quiet_for_library_users():
    """In a process of its own: what is said at import is said once."""
    code = "import mmtune.models.adapters, bitsandbytes, logging; print(logging.getLogger('bitsandbytes').level)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(logging.ERROR)
    assert "gemm_4bit_forward" not in done.stderr


def test_a_level_that_was_chosen_for_bitsandbytes_stays(monkeypatch):
    log = logging.getLogger("bitsandbytes")
    for given, expected in ((logging.INFO, logging.INFO), (logging.NOTSET, logging.ERROR)):
        monkeypatch.setattr(log, "level", given)
        quiet_bitsandbytes()
        assert log.level == expected
