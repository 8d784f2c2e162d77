"""Kinds of adapters that stack: a new one changes nothing, two act as they do merged, none acts when unloaded."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mmtune.errors import CheckpointError
from mmtune.models.adapters import attach_adapter
from mmtune.models.stacking import STACKABLE, activate, adapter_folders, add_adapter, stack_adapters, stacked_folders

TARGETS = {"target_modules": ["q_proj", "down_proj"]}
OPTIONS = {
    "ia3": {"target_modules": ["q_proj", "down_proj"], "feedforward_modules": ["down_proj"]},
    "boft": {**TARGETS, "boft_block_size": 4},
}
IDS = torch.arange(12)[None]


def base():
    torch.manual_seed(0)
    shape = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2}
    return LlamaForCausalLM(LlamaConfig(**shape, num_attention_heads=4)).requires_grad_(False).eval()


def with_adapter(kind, seed=None, **options):
    llm = attach_adapter(base(), {"kind": kind, **OPTIONS.get(kind, TARGETS), **options}).eval()
    if seed is not None:  # away from its start, where it changes nothing
        torch.manual_seed(seed)
        for value in llm.parameters():
            if value.requires_grad:
                value.data += 0.2 * torch.randn_like(value)
    return llm


@torch.no_grad()
def logits(llm):
    return llm(inputs_embeds=llm.get_input_embeddings()(IDS)).logits


@pytest.fixture
def saved(tmp_path):
    """Return a function that saves a trained adapter of a kind, and gives its folder and what it says."""

    def save(kind, **options):
        llm = with_adapter(kind, seed=1, **options)
        llm.save_pretrained(str(tmp_path / kind), save_embedding_layers=False)
        return tmp_path / kind, logits(llm)

    return save


@pytest.mark.parametrize("kind", STACKABLE)
def test_a_stack_of_each_kind(saved, kind):
    folder, expected = saved(kind)
    assert (expected - logits(base())).abs().max() > 1e-3
    llm = with_adapter(kind)
    trained = [name for name, value in llm.named_parameters() if value.requires_grad]
    stack_adapters(llm, [folder])
    assert [name for name, value in llm.named_parameters() if value.requires_grad] == trained
    torch.testing.assert_close(logits(llm), expected, rtol=1e-4, atol=1e-5)
    llm = with_adapter(kind, seed=2)
    stack_adapters(llm, [folder])
    both = logits(llm)
    assert (both - expected).abs().max() > 1e-3
    torch.testing.assert_close(logits(llm.merge_and_unload()), both, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["lora", "ia3", "loha"])
def test_one_acts_or_the_other_or_none(saved, kind):
    folder, expected = saved(kind)
    llm = with_adapter(kind, seed=2)
    own = logits(llm)
    add_adapter(llm, folder, "other")
    assert torch.equal(logits(llm), own)
    for names, wanted in ((["other"], expected), ([], logits(base())), (["default"], own)):
        activate(llm, names)
        assert torch.equal(logits(llm), wanted)
        assert not any(value.requires_grad for value in llm.parameters())


def test_a_plain_model_gets_its_first_adapter(saved):
    folder, expected = saved("lora")
    assert torch.equal(logits(add_adapter(base(), folder, "first").eval()), expected)


def test_copies_of_whole_modules_do_not_stack(saved):
    folder, _ = saved("lora", modules_to_save=["lm_head"])
    llm = with_adapter("lora", modules_to_save=["lm_head"])
    with pytest.raises(CheckpointError, match="PEFT cannot stack on it"):
        stack_adapters(llm, [folder])


def test_kinds_that_do_not_stack_say_which_do(saved):
    folder, _ = saved("ln_tuning", target_modules=["input_layernorm"])
    with pytest.raises(CheckpointError, match=r"several ln_tuning adapters act at once. Kinds that stack: lora, ia3"):
        stack_adapters(with_adapter("ln_tuning", target_modules=["input_layernorm"]), [folder])


def test_a_broken_config_is_one_line(saved):
    folder, _ = saved("lora")
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "r": "x"')
    with pytest.raises(CheckpointError, match=r"adapter_config\.json: cannot be read"):
        stack_adapters(with_adapter("lora"), [folder])


def test_the_lowest_of_a_stack_comes_first(tmp_path):
    for name in ("adapter", *(f"stacked/{number}" for number in range(12))):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "adapter_config.json").write_text("{}")
    assert [path.name for path in stacked_folders(tmp_path)] == [str(number) for number in range(12)]
    assert [path.name for path in adapter_folders(tmp_path)] == [*map(str, range(12)), "adapter"]
    assert adapter_folders(tmp_path / "adapter") == [tmp_path / "adapter"]
