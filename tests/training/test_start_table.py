"""The table before the first step: true counts, also of quantized weights, in 80 columns."""

import pytest
import torch

from mmtune.build import build_parts
from mmtune.cli import main
from mmtune.config import load_config
from mmtune.training.start_table import part_size, short_number, start_table

CPU = torch.device("cpu")
NO_START = "model.init_from=null"


def build(*changes):
    config = load_config("finetune.yaml", [NO_START, *changes], "sft")
    return config, build_parts(config.model, CPU).model


def rows_of(text):
    lines = [line.split() for line in text.splitlines()]
    return {line[0]: line[1:] for line in lines if line and line[0] in ("vision", "projector", "llm", "all")}


@pytest.mark.parametrize(
    ("quantization", "linear_bytes"), [("null", 4.0), ("nf4", 0.5), ("int8", 1.0)], ids=["fp32", "nf4", "int8"]
)
def test_quantized_weights_are_counted_as_what_they_stand_for(workspace, quantization, linear_bytes):
    _, plain = build()
    _, model = build(f"model.llm.quantization={quantization}", "model.llm.double_quantization=false")
    size = part_size(model.llm, quantization)
    true = sum(value.numel() for value in plain.llm.parameters())
    trained = sum(value.numel() for value in plain.llm.parameters() if value.requires_grad)
    assert (size.num_weights, size.num_trained) == (true, trained)
    layers = plain.base_llm.model.layers
    linear = sum(value.numel() for name, value in layers.named_parameters() if "base_layer" in name)
    rows = sum(value.shape[0] for name, value in layers.named_parameters() if "base_layer" in name)
    constants = {"null": 0, "nf4": 4 * linear / 64, "int8": 4 * rows}[quantization]
    assert size.num_bytes == 4 * (true - linear) + linear_bytes * linear + constants


def test_the_constants_of_double_quantization_count_once_quantized(workspace):
    _, once = build("model.llm.quantization=nf4", "model.llm.double_quantization=false")
    _, twice = build("model.llm.quantization=nf4")
    layer = twice.base_llm.model.layers[0].mlp.up_proj.base_layer
    state = layer.weight.quant_state
    constants = state.absmax.nbytes + state.state2.absmax.nbytes + state.state2.code.nbytes + state.offset.nbytes
    assert part_size(layer, "nf4").num_bytes == layer.weight.nbytes + constants
    assert part_size(layer, "nf4").num_weights == 64 * 32
    assert part_size(once.llm).num_weights == part_size(twice.llm).num_weights


def test_int8_weights_count_the_same_after_a_forward_pass(workspace):
    _, model = build("model.llm.quantization=int8")
    before = part_size(model.llm, "int8")
    model.base_llm(torch.arange(5)[None])
    assert part_size(model.llm, "int8") == before


def test_tied_weights_count_once(workspace):
    layer = torch.nn.Linear(4, 4, bias=False)
    assert part_size(torch.nn.ModuleList([layer, layer])).num_weights == 16


def test_the_table_says_method_dtype_and_rate_in_80_columns(workspace):
    changes = ["model.llm.dtype=bfloat16", "model.llm.quantization=nf4", "model.vision.tune={top_layers: 1}"]
    config, model = build(*changes, "model.projector.learning_rate=2e-5")
    text = start_table(config, model)
    assert max(map(len, text.splitlines())) <= 80
    rows = rows_of(text)
    assert "lora r=4 nf4, fp32 0.005" in " ".join(rows["llm"])
    assert "top 1 layers bf16 0.005" in " ".join(rows["vision"])
    assert "full fp32 2e-05" in " ".join(rows["projector"])
    total = sum(part_size(part, "nf4").num_weights for part in (model.llm, model.vision, model.projector))
    assert " ".join(rows["all"][:2]) == short_number(total)


def test_every_run_shows_it_before_its_first_step(workspace, capsys):
    assert main(["pretrain", "pretrain.yaml", "train.max_steps=1"]) == 0
    lines = capsys.readouterr().err.splitlines()
    first = next(number for number, line in enumerate(lines) if "step 1/1" in line)
    start = next(number for number, line in enumerate(lines) if line.split()[:3] == ["part", "parameters", "trained"])
    assert start < first
    rows = rows_of("\n".join(lines[start:first]))
    assert list(rows) == ["vision", "projector", "llm", "all"]
    assert "frozen" in rows["llm"]
    assert "full" in rows["projector"]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (7, "7"),
        (999, "999"),
        (27_392, "27.4 k"),
        (999_600, "1.00 M"),
        (1_889_110_016, "1.89 B"),
        (304_000_000, "304 M"),
    ],
)
def test_numbers_have_three_digits(number, text):
    assert short_number(number) == text
