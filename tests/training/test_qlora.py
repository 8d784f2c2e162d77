"""QLoRA for real: a 4-bit base with doubly quantized constants, trained through its adapter on the CPU."""

import bitsandbytes
import torch
from safetensors.torch import load_file
from training_workspace import fit

from mmtune.build import load_run
from mmtune.build_data import build_dataset, build_reader
from mmtune.cli import main
from mmtune.config import load_config
from mmtune.training.callbacks import read_log

NF4 = ["model.llm.quantization=nf4", "train.max_steps=8", "train.save_steps=4"]


def linear_layers(model):
    return [module for module in model.modules() if isinstance(module, bitsandbytes.nn.Linear4bit)]


def test_qlora_trains_resumes_and_answers(workspace, capsys):
    assert main(["pretrain", "pretrain.yaml", *NF4]) == 0
    assert main(["finetune", "finetune.yaml", *NF4]) == 0
    losses = [entry["loss"] for entry in read_log(workspace / "runs/finetune/log.jsonl")]
    assert losses[-1] < losses[0]
    capsys.readouterr()
    assert main(["chat", "runs/finetune", "--image", "0.png", "--prompt", "What?", "--max-new-tokens", "3"]) == 0

    adapter = load_file(workspace / "runs/finetune/adapter/adapter_model.safetensors")
    assert any(value.abs().sum() > 0 for name, value in adapter.items() if "lora_B" in name)

    parts = load_run(workspace / "runs/finetune", device=torch.device("cpu"))
    layers = linear_layers(parts.model.base_llm.model)
    assert len(layers) == 14  # q, k, v, o, gate, up, down of two blocks
    assert all(layer.weight.quant_type == "nf4" and layer.weight.quant_state.nested for layer in layers)
    assert not any(isinstance(module, bitsandbytes.nn.Linear4bit) for module in parts.model.projector.modules())


def test_the_quantized_base_is_bit_equal_after_training(workspace):
    from mmtune.build import build_parts, calibrate_projector

    config = load_config("pretrain.yaml", ["model.llm.quantization=nf4", "train.save_steps=0"], "pretrain")
    parts = build_parts(config.model, torch.device("cpu"))
    dataset, _ = build_dataset(config, build_reader(config.model))
    calibrate_projector(config.model, parts, dataset)
    before = {name: value.clone() for name, value in parts.model.llm.state_dict().items()}
    fit(parts, config, dataset)
    after = parts.model.llm.state_dict()
    assert any("quant_state" in name for name in before)
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_answering_leaves_the_quantized_weights_as_they_are(workspace):
    """Also on a CPU for which bitsandbytes has kernels of its own: answers between steps must not change the model."""
    from mmtune.build import build_parts

    config = load_config("pretrain.yaml", ["model.llm.quantization=nf4"], "pretrain")
    model = build_parts(config.model, torch.device("cpu")).model.eval()
    before = {name: value.clone() for name, value in model.llm.state_dict().items()}
    layer = model.base_llm.model.layers[0].mlp.gate_proj
    nested = layer.weight.quant_state.nested
    with torch.inference_mode():
        model.hidden_states(model.embed(torch.arange(8)[None]))
    assert layer.weight.quant_state.nested == nested
    after = model.llm.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
