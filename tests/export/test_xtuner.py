"""What `xtuner` writes changes the weights of the base as the run's adapter does, under XTuner's names."""

import json

import pytest
import torch
from safetensors.torch import load_file

from mmtune.build import load_run
from mmtune.export.xtuner_lora import Lora, fused_loras
from mmtune.export.xtuner_reader import merge_by_names
from mmtune.models.checkpoint_files import read_weights
from mmtune.models.internlm2 import split_wqkv, to_internlm2
from mmtune.testing import TINY_INTERNLM2_SHAPE

PROJECTOR_ALONE = """
import json, torch
from transformers import AutoModel
model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)
print(json.dumps(model(torch.linspace(-1, 1, 16)[None]).tolist()))
"""


def merged_by_the_run(run):
    llm = load_run(run, device=torch.device("cpu")).model.llm.merge_and_unload()
    shape = TINY_INTERNLM2_SHAPE
    return dict(to_internlm2(llm.state_dict(), shape["num_attention_heads"], shape["num_key_value_heads"]))


def test_peft_merges_it_into_internlm2_weights_as_the_run_does(make_run, export, bench):
    run = make_run("internlm2")
    folder, told = export(run, "xtuner")
    assert "8 of 8 greedy answers equal" in told
    base = dict(read_weights(bench / "internlm2"))
    fused = base["model.layers.0.attention.wqkv.weight"].clone()  # merging changes the base in place
    found, expected = merge_by_names(base, folder / "llm_adapter"), merged_by_the_run(run)
    assert found.keys() == expected.keys() == base.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=2e-6, msg=name)
    assert not torch.equal(found["model.layers.0.attention.wqkv.weight"], fused)


def test_names_ranks_and_scales_are_those_of_the_fused_layout(make_run, export):
    folder, _ = export(make_run("internlm2"), "xtuner")
    config = json.loads((folder / "llm_adapter" / "adapter_config.json").read_text())
    assert config["target_modules"] == ["w1", "w2", "w3", "wo", "wqkv"]
    fused = ["model.layers.0.attention.wqkv", "model.layers.1.attention.wqkv"]
    assert (config["r"], config["lora_alpha"]) == (4, 8)
    assert config["rank_pattern"] == dict.fromkeys(fused, 12)
    assert config["alpha_pattern"] == dict.fromkeys(fused, 24)  # the same scale, 2
    tensors = load_file(folder / "llm_adapter" / "adapter_model.safetensors")
    assert tensors[f"base_model.model.{fused[0]}.lora_B.weight"].shape == (128, 12)


def test_the_projector_loads_with_transformers_alone(make_run, export, alone):
    run = make_run("internlm2")
    folder, _ = export(run, "xtuner")
    assert set(load_file(folder / "projector" / "model.safetensors")) == {
        "model.0.weight", "model.0.bias", "model.2.weight", "model.2.bias"
    }  # fmt: skip
    found = alone(PROJECTOR_ALONE, folder / "projector")
    with torch.no_grad():
        expected = load_run(run).model.projector.cpu()(torch.linspace(-1, 1, 16)[None])
    torch.testing.assert_close(torch.tensor(found), expected, rtol=0, atol=1e-5)


def test_an_adapter_on_llama_names_stays_as_it_is(make_run, export):
    folder, told = export(make_run("bytes"), "xtuner")
    assert "8 of 8 greedy answers equal" in told
    config = json.loads((folder / "llm_adapter" / "adapter_config.json").read_text())
    assert "q_proj" in config["target_modules"]


def test_a_pretrain_run_is_a_projector_alone(make_run, export):
    folder, _ = export(make_run("internlm2", "pretrain"), "xtuner")
    assert sorted(path.name for path in folder.iterdir()) == ["mmtune_export.json", "projector"]


def test_a_4_bit_run_is_compared_on_the_original_base(make_run, export):
    run = make_run("internlm2", name="nf4", settings={"quantization": "nf4"})
    folder, told = export(run, "xtuner")
    assert "8 of 8 greedy answers equal" in told
    assert json.loads((folder / "mmtune_export.json").read_text())["base"] == "original"


@pytest.mark.parametrize("base", ["internlm2", "bytes"])
def test_parts_trained_in_full_are_written_whole(base, make_run, export, bench):
    parts = {"vision": {"source": "transformers", "name": str(bench / "clip"), "tune": "full"}, "adapter": None}
    run = make_run(base, name=f"{base}-full", settings={"tune": "full"}, **parts)
    folder, told = export(run, "xtuner")
    assert "8 of 8 greedy answers equal" in told
    names = ["llm", "mmtune_export.json", "projector", "visual_encoder"]
    assert sorted(path.name for path in folder.iterdir()) == names


@pytest.mark.parametrize("given", [("q_proj", "k_proj", "v_proj"), ("q_proj", "v_proj")])
def test_fused_updates_split_into_the_given_ones(given):
    from types import SimpleNamespace

    torch.manual_seed(0)
    config = SimpleNamespace(num_attention_heads=4, num_key_value_heads=2, head_dim=3)
    rows = {"q_proj": 12, "k_proj": 6, "v_proj": 6}
    scales = {"q_proj": 2.0, "k_proj": 2.0, "v_proj": 0.5}
    loras = {
        f"model.layers.0.self_attn.{part}": Lora(torch.randn(2, 5), torch.randn(rows[part], 2), scales[part])
        for part in given
    }
    (fused,) = fused_loras(loras, config).values()
    assert fused.rank == 2 * len(given)
    split = split_wqkv(fused.scale * fused.b @ fused.a, 4, 2)
    for part, found in zip(rows, split, strict=True):
        lora = loras.get(f"model.layers.0.self_attn.{part}")
        expected = torch.zeros(rows[part], 5) if lora is None else lora.scale * lora.b @ lora.a
        torch.testing.assert_close(found, expected)


def test_updates_that_share_their_first_matrix_keep_their_rank():
    from types import SimpleNamespace

    config = SimpleNamespace(num_attention_heads=4, num_key_value_heads=2, head_dim=3)
    a = torch.randn(2, 5)
    rows = {"q_proj": 12, "k_proj": 6, "v_proj": 6}
    loras = {f"model.layers.0.self_attn.{part}": Lora(a, torch.randn(n, 2), 2.0) for part, n in rows.items()}
    (fused,) = fused_loras(loras, config).values()
    assert fused.rank == 2
    query, _, _ = split_wqkv(fused.b, 4, 2)
    assert torch.equal(query, loras["model.layers.0.self_attn.q_proj"].b)


def test_refusals(make_run, refused):
    dora = {"kind": "dora", "r": 2, "lora_alpha": 2, "lora_dropout": 0.0}
    run = make_run("bytes", name="dora", adapter=dora)
    assert refused(run, "xtuner") == (
        f"{run}: its adapter is no plain LoRA (use_dora: True), and XTuner's layout holds that alone."
        " Take --format adapter or merged."
    )
    assert "was trained on text alone, and xtuner holds a model that sees." in refused(
        make_run("bytes", "sft"), "xtuner"
    )
