"""What is peculiar to a method, beyond what all methods must do."""

import pytest
import torch

from mmtune.errors import ConfigError
from mmtune.models.adapter_start import first_factors, start_from_weights, take_out
from mmtune.models.adapters import attach_adapter
from mmtune.models.blocks import blocks_of
from mmtune.models.language import load_llm
from mmtune.models.methods import METHODS, kind_of, loraplus_lr_ratio
from mmtune.models.tuning import set_trained
from mmtune.models.vlm import VisionLanguageModel

CPU = torch.device("cpu")


@pytest.fixture
def llm(tiny):
    torch.manual_seed(0)
    return load_llm(str(tiny.llm), dtype=torch.float32, device=CPU)


@torch.no_grad()
def logits(llm):
    return llm(input_ids=torch.arange(5, 25)[None]).logits


SAME_AT_THE_START = sorted(
    METHODS.keys() - {"prompt_tuning", "p_tuning", "prefix_tuning", "p_tuning_v2", "bitfit", "adalora"}
)


@pytest.mark.parametrize("name", SAME_AT_THE_START)
def test_a_new_adapter_changes_no_answer(llm, name):
    before = logits(llm)
    sizes = {"r": 8} if kind_of({"kind": name}) in ("lora", "miss") else {}
    wrapped = attach_adapter(llm, {"kind": name, **sizes})
    torch.testing.assert_close(logits(wrapped), before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["hira", "beft", "gralora", "randlora"])
def test_other_kinds_of_peft_pass_through_and_are_called_untested(llm, name, caplog):
    with caplog.at_level("WARNING", logger="mmtune"):
        model = VisionLanguageModel(attach_adapter(llm, {"kind": name}))
    assert f"adapter kind '{name}' goes to PEFT as it is: not tested here" in caplog.text
    ids = torch.arange(5, 25)[None]
    model(ids, ids.clone())["loss"].backward()
    assert [value for value in model.llm.parameters() if value.grad is not None]


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_4", "olora"])
def test_a_start_from_the_weights_keeps_the_model_and_comes_back_by_its_factors(llm, tiny, start):
    before = logits(llm)
    options = {"kind": "lora", "r": 8, "lora_alpha": 4, "init_lora_weights": start}
    wrapped = attach_adapter(llm, options)
    factors = start_from_weights(wrapped)
    torch.testing.assert_close(logits(wrapped), before, rtol=1e-4, atol=1e-5)
    torch.manual_seed(9)  # another random decomposition must not matter
    other = attach_adapter(load_llm(str(tiny.llm), dtype=torch.float32, device=CPU), options)
    take_out(other, factors)
    expected = {name: value for name, value in wrapped.state_dict().items() if "base_layer" in name}
    found = other.state_dict()
    assert not [name for name, value in expected.items() if not torch.equal(found[name], value)]
    assert first_factors(other).keys() == factors.keys()


def test_the_value_of_tune_names_what_trains(llm):
    def trained(tune):
        llm.requires_grad_(False)
        set_trained(llm, tune, "model.llm.tune")
        return {name for name, value in llm.named_parameters() if value.requires_grad}

    everything = {name for name, _ in llm.named_parameters()}
    assert trained("frozen") == trained("adapter") == set()
    assert trained("full") == trained({"top_layers": 2}) | trained(["*embed_tokens*", "lm_head*", "model.norm*"])
    assert trained({"top_layers": 1}) == {name for name in everything if name.startswith("model.layers.1.")}
    assert trained(["*norm*"]) == {name for name in everything if "norm" in name}
    assert len(blocks_of(llm)) == 2
    with pytest.raises(ConfigError, match=r"model.llm.tune: top_layers: 3, but this model has 2 blocks"):
        trained({"top_layers": 3})


def test_loraplus_is_a_ratio_of_rates():
    assert loraplus_lr_ratio(None) == loraplus_lr_ratio({"kind": "lora"}) == 1
    assert loraplus_lr_ratio({"kind": "loraplus"}) == 16
    assert loraplus_lr_ratio({"kind": "loraplus", "loraplus_lr_ratio": 4}) == 4
