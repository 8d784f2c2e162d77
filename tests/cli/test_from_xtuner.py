"""Runs that start from XTuner's weights, through the command line."""

import json
import os

import pytest
import torch
from safetensors.torch import load_file
from xtuner_files import llm_lora_shapes, projector_shapes, random_like, write_pth

from mmtune.cli import main
from mmtune.testing import write_internlm2

ALL = "[q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, lm_head]"


@pytest.fixture(scope="module")
def internlm2(tmp_path_factory):
    return write_internlm2(tmp_path_factory.mktemp("internlm2"))


@pytest.fixture
def config(config_file, data_file, record, internlm2):
    """A finetune config over a tiny InternLM2, whose steps hardly move the weights."""
    data_file(record("<image>\nWhat is this?", "The cat.", image="1.png"))
    return config_file(
        f"model.llm.name_or_path={internlm2}",
        "model.llm.chat_template=internlm2_chat",
        "model.init_from=iter_2181.pth",
        "train.learning_rate=1e-5",
        "train.max_steps=3",
    )


def test_a_finetune_starts_from_the_projector_of_a_pth(config, desk):
    weights = random_like(projector_shapes())
    write_pth(desk / "iter_2181.pth", weights)
    assert main(["finetune", config, "model.adapter.r=2"]) == 0
    trained = load_file(desk / "run/projector.safetensors")
    for ours, theirs in (("layers.0.weight", "projector.model.0.weight"), ("layers.2.bias", "projector.model.2.bias")):
        torch.testing.assert_close(trained[ours], weights[theirs], rtol=0, atol=1e-4)
        assert not torch.equal(trained[ours], weights[theirs])


def test_a_finetune_goes_on_with_the_adapter_of_a_pth_and_is_then_a_run_like_any_other(config, desk):
    weights = random_like(projector_shapes() | llm_lora_shapes())
    write_pth(desk / "iter_2181.pth", weights)
    adapter = f"model.adapter={{kind: lora, r: 4, lora_alpha: 8, target_modules: {ALL}}}"
    assert main(["finetune", config, adapter]) == 0
    trained = load_file(desk / "run/adapter/adapter_model.safetensors")
    expected = weights["llm.base_model.model.output.lora_B.default.weight"]
    torch.testing.assert_close(trained["base_model.model.lm_head.lora_B.weight"], expected, rtol=0, atol=1e-4)
    assert json.loads((desk / "run/adapter/adapter_config.json").read_text())["r"] == 4
    again = ["model.init_from=run", "train.output_dir=again", adapter]
    assert main(["finetune", config, *again]) == 0
    assert main(["chat", "run", "--image", "1.png", "--prompt", "What?", "--max-new-tokens", "2"]) == 0


def test_a_pth_that_runs_code_ends_the_run_before_it_starts(config, desk, capsys):
    class Attack:
        def __reduce__(self):
            return os.system, ("touch was-run",)

    torch.save({"state_dict": random_like(projector_shapes()), "message_hub": Attack()}, "iter_2181.pth")
    assert main(["finetune", config, "model.adapter.r=8"]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("mmtune: iter_2181.pth: pickles posix.system, which is neither a tensor nor a log")
    assert not (desk / "was-run").exists()
