"""Samples joined into one row without padding: the same loss and gradients as padded rows, with every model."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, Qwen2Config, Qwen2ForCausalLM

from mmtune.build import build_parts
from mmtune.build_data import build_dataset, build_reader
from mmtune.cli import main
from mmtune.config import load_config
from mmtune.data.collate import collate, collate_joined
from mmtune.models.attention import BLOCKWISE, is_blockwise, use_blockwise_attention
from mmtune.models.isolation import leak_between_samples
from mmtune.models.loss import answer_loss
from mmtune.models.vlm import VisionLanguageModel
from mmtune.training.rows import choose_collator

SHAPE = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 16,
}
DYNAMIC = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE)),
    "llama with dynamic NTK": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE, rope_parameters=DYNAMIC)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SHAPE)),
    "mistral, a sliding window of 5": lambda: MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=5)),
}


def gradients(model):
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


def loss_and_gradients(model, batch):
    model.zero_grad()
    loss = model(**batch)["loss"]
    loss.backward()
    return loss.detach(), gradients(model)


def items(lengths):
    generator = torch.Generator().manual_seed(0)
    for length in lengths:
        ids = torch.randint(0, 64, (length,), generator=generator)
        labels = ids.masked_fill(torch.arange(length) < length // 2 + 1, -100)
        yield {"input_ids": ids, "labels": labels}


@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "with gradient checkpointing"])
@pytest.mark.parametrize("name", MODELS)
def test_joined_equals_padded(name, checkpointing):
    torch.manual_seed(0)
    model = VisionLanguageModel(MODELS[name]()).train()
    if checkpointing:
        model.gradient_checkpointing_enable()
    samples = list(items([9, 14, 3, 11]))
    expected = loss_and_gradients(model, collate(samples))
    assert use_blockwise_attention(model.base_llm)
    loss, found = loss_and_gradients(model, collate_joined(samples))
    torch.testing.assert_close(loss, expected[0], rtol=1e-5, atol=0)
    assert found.keys() == expected[1].keys()
    for key, value in expected[1].items():
        torch.testing.assert_close(found[key], value, rtol=1e-3, atol=1e-6, msg=key)


def test_blockwise_attention_is_that_of_transformers_for_other_input():
    torch.manual_seed(0)
    llm = MODELS["llama"]().eval()
    ids = torch.randint(0, 64, (2, 12))
    mask = torch.ones_like(ids)
    mask[0, :5] = 0
    expected = llm(input_ids=ids, attention_mask=mask).logits
    answer = llm.generate(ids, attention_mask=mask, max_new_tokens=6, do_sample=False)
    assert use_blockwise_attention(llm)
    assert torch.equal(llm(input_ids=ids, attention_mask=mask).logits, expected)
    assert torch.equal(llm.generate(ids, attention_mask=mask, max_new_tokens=6, do_sample=False), answer)


def test_images_and_text_joined_equal_padded(workspace):
    Path("runs").mkdir()
    assert main(["pretrain", "pretrain.yaml", "train.max_steps=1"]) == 0
    config = load_config("finetune.yaml", ["model.adapter.lora_dropout=0.0"], "finetune")
    torch.manual_seed(0)
    parts = build_parts(config.model, torch.device("cpu"))
    for name, parameter in parts.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    dataset, _ = build_dataset(config, build_reader(config.model))
    samples = [dataset[number] for number in range(len(dataset))]
    assert {"pixel_values" in sample for sample in samples} == {True, False}
    expected = loss_and_gradients(parts.model.train(), collate(samples))
    assert choose_collator(config, parts.model) is collate_joined
    loss, found = loss_and_gradients(parts.model, collate_joined(samples))
    torch.testing.assert_close(loss, expected[0], rtol=1e-5, atol=0)
    assert any("projector" in name for name in found)
    assert any("lora" in name for name in found)
    for key, value in expected[1].items():
        torch.testing.assert_close(found[key], value, rtol=1e-3, atol=1e-6, msg=key)


def test_a_sample_of_a_joined_row_has_no_gradient_from_another():
    model = VisionLanguageModel(MODELS["llama"]())
    use_blockwise_attention(model.base_llm)
    batch = collate_joined(list(items([9, 14, 3])))
    embeds = model.embed(batch["input_ids"]).detach().requires_grad_()
    hidden = model.hidden_states(embeds, batch["position_ids"], batch["sample_lengths"])
    start = 0
    for length in batch["sample_lengths"]:
        own = torch.zeros(embeds.shape[1], dtype=torch.bool)
        own[start : start + length] = True
        (gradient,) = torch.autograd.grad(hidden[:, own].square().sum(), embeds, retain_graph=True)
        assert gradient[:, own].abs().sum() > 0
        assert gradient[:, ~own].abs().max() == 0
        start += length


def train(*changes):
    assert main(["finetune", "finetune.yaml", *changes]) == 0


def test_one_key_pads_again_and_the_run_is_the_same(workspace):
    """The whole path: the losses of a run on joined rows are those of one on padded rows."""
    assert main(["pretrain", "pretrain.yaml", "train.max_steps=1"]) == 0
    same = ("model.adapter.lora_dropout=0.0", "train.save_steps=0")
    train(*same, "train.output_dir=runs/joined")
    train(*same, "train.output_dir=runs/padded", "data.padding_free=false")
    losses = [
        [json.loads(line)["loss"] for line in Path(f"runs/{name}/log.jsonl").read_text().splitlines()]
        for name in ("joined", "padded")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    joined, padded = (load_file(f"runs/{name}/projector.safetensors") for name in ("joined", "padded"))
    for key, value in padded.items():
        torch.testing.assert_close(joined[key], value, rtol=1e-2, atol=1e-4, msg=key)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_attention_of_another_kind_pads_and_says_so(workspace, caplog, attention):
    config = load_config("pretrain.yaml", [f"model.llm.attn_implementation={attention}"], "pretrain")
    model = build_parts(config.model, torch.device("cpu")).model
    with caplog.at_level("INFO", "mmtune"):
        collator = choose_collator(config, model)
    assert collator(list(items([3, 5])))["input_ids"].shape == (2, 5)
    assert f"batches are padded: LlamaForCausalLM with attention '{attention}'" in caplog.text
    assert not is_blockwise(model.base_llm)


def test_a_model_that_leaks_is_trained_on_padded_rows(workspace, monkeypatch, caplog):
    config = load_config("pretrain.yaml", [], "pretrain")
    model = build_parts(config.model, torch.device("cpu")).model
    body = model.base_llm.get_decoder()
    forward = body.forward

    def blind(inputs_embeds, **given):
        return forward(inputs_embeds=inputs_embeds, use_cache=False)

    monkeypatch.setattr(body, "forward", blind)
    with caplog.at_level("INFO", "mmtune"):
        collator = choose_collator(config, model)
    assert collator(list(items([3, 5])))["input_ids"].shape == (2, 5)
    assert "lets packed samples see each other" in caplog.text


def test_a_row_with_wrong_positions_is_found(workspace):
    """Independence alone does not show it: each sample must also be what it is alone."""
    model = build_parts(load_config("pretrain.yaml", [], "pretrain").model, torch.device("cpu")).model
    use_blockwise_attention(model.base_llm)
    assert leak_between_samples(model) is None
    body = model.base_llm.get_decoder()
    forward = body.forward
    body.forward = lambda **given: forward(**{**given, "position_ids": None})
    assert leak_between_samples(model) is None  # rotary embeddings see only distances
    body.forward = lambda **given: forward(**{**given, "inputs_embeds": given["inputs_embeds"].roll(1, dims=1)})
    assert leak_between_samples(model) is not None


def test_the_loss_of_a_joined_row_is_that_of_its_samples_apart():
    torch.manual_seed(0)
    model = VisionLanguageModel(MODELS["llama"]())
    use_blockwise_attention(model.base_llm)
    samples = list(items([9, 14, 3]))
    joined = collate_joined(samples)
    hidden = model.hidden_states(model.embed(joined["input_ids"]), joined["position_ids"], joined["sample_lengths"])
    head = model.base_llm.get_output_embeddings()
    apart = sum(model(**collate([sample]), num_items_in_batch=1)["loss"] for sample in samples)
    torch.testing.assert_close(answer_loss(hidden, joined["labels"], head, 1), apart, rtol=1e-5, atol=0)


def test_the_name_among_the_attentions_of_transformers():
    llm = MODELS["llama"]()
    llm.set_attn_implementation("eager")
    assert not use_blockwise_attention(llm), "a model that was told its attention keeps it"
    llm.set_attn_implementation("sdpa")
    assert use_blockwise_attention(llm)
    assert llm.config._attn_implementation == BLOCKWISE
