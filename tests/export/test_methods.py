"""Runs of every way of tuning export, or say why they cannot."""

import json

import pytest
from safetensors.torch import load_file

ADAPTERS = {
    "dora": {"kind": "dora", "r": 4},
    "pissa": {"kind": "pissa", "r": 4, "lora_alpha": 4},
    "rslora olora": {"kind": "olora", "use_rslora": True, "r": 4},
    "oft": {"kind": "oft", "oft_block_size": 8},
    "ia3": {"kind": "ia3"},
}
PARTIAL = {"full": "full", "top layers": {"top_layers": 1}, "names": ["model.layers.*.mlp.*"]}
PROMPTS = {
    "prompt_tuning": {"kind": "prompt_tuning", "num_virtual_tokens": 4},
    "p_tuning": {"kind": "p_tuning", "num_virtual_tokens": 4, "encoder_hidden_size": 16},
    "prefix_tuning": {"kind": "prefix_tuning", "num_virtual_tokens": 4},
}


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_of_any_kind_is_merged_and_goes_alone(name, make_run, export):
    run = make_run("bytes", name=f"method-{name}", adapter=ADAPTERS[name])
    for format_name in ("merged", "adapter"):
        assert "6 of 6 greedy answers equal" in export(run, format_name)[1]


def test_what_started_from_the_weights_is_plain_lora_of_twice_the_rank(make_run, export):
    folder, _ = export(make_run("bytes", name="method-pissa", adapter=ADAPTERS["pissa"]), "adapter")
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["init_lora_weights"]) == (8, 8.0, True)
    shapes = {
        key.rsplit(".", 2)[1]: value.shape for key, value in load_file(folder / "adapter_model.safetensors").items()
    }
    assert shapes["lora_A"][0] == shapes["lora_B"][1] == 8


@pytest.mark.parametrize("name", PARTIAL)
def test_partly_and_fully_tuned_runs_export(name, make_run, export):
    run = make_run("bytes", name=f"partly-{name}", settings={"tune": PARTIAL[name]}, adapter=None)
    for format_name in ("merged", "hf-llava"):
        assert "greedy answers equal" in export(run, format_name)[1]


@pytest.mark.parametrize("name", PROMPTS)
def test_virtual_tokens_go_as_an_adapter_alone(name, make_run, export, refused):
    run = make_run("bytes", name=f"method-{name}", adapter=PROMPTS[name])
    assert "6 of 6 greedy answers equal" in export(run, "adapter")[1]
    message = refused(run, "merged")
    assert f"was tuned by {name}, which cannot be merged into weights" in message
    assert message.endswith("Take --format adapter.")


def test_bottleneck_adapters_do_not_export(make_run, refused):
    run = make_run("bytes", name="method-houlsby", adapter={"kind": "houlsby", "bottleneck_size": 8})
    assert "was tuned by houlsby, which cannot be merged into weights" in refused(run, "gguf")
    assert "holds no adapter of PEFT (kind: houlsby trains the model itself)" in refused(run, "adapter")


def test_xtuners_layout_does_not_take_what_started_from_the_weights(make_run, refused):
    run = make_run("bytes", name="method-pissa", adapter=ADAPTERS["pissa"])
    assert "its adapter started from the weights" in refused(run, "xtuner")
