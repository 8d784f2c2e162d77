"""The loss at supervised positions is the loss everyone computes, in any chunking and any padding."""

import pytest
import torch
from transformers import LlamaForCausalLM
from transformers.trainer_pt_utils import LabelSmoother

from mmtune.conversation import IGNORE_INDEX
from mmtune.data.collate import collate
from mmtune.models.loss import answer_loss
from mmtune.models.vlm import VisionLanguageModel


@pytest.fixture
def llm(models):
    return LlamaForCausalLM.from_pretrained(models / "llm", dtype=torch.float32)


@pytest.fixture
def batch(llm):
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, llm.config.vocab_size, (3, 40), generator=generator)
    labels = torch.where(torch.rand(ids.shape, generator=generator) < 0.3, ids, IGNORE_INDEX)
    labels[:, 0] = IGNORE_INDEX
    return {"input_ids": ids, "labels": labels}


def gradients(llm):
    return {name: value.grad.clone() for name, value in llm.named_parameters() if value.grad is not None}


def test_supervised_position_loss_equals_the_full_loss_and_its_gradients(llm, batch):
    full = llm(**batch).loss
    full.backward()
    expected = gradients(llm)
    llm.zero_grad()
    ours = VisionLanguageModel(llm)(**batch)["loss"]
    ours.backward()
    torch.testing.assert_close(ours, full, rtol=1e-6, atol=1e-6)
    found = gradients(llm)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("num_chunks", [1, 7, 1000])
def test_chunked_loss_equals_unchunked_loss(llm, batch, num_chunks):
    hidden = llm.model(batch["input_ids"]).last_hidden_state.detach().requires_grad_()
    whole = answer_loss(hidden, batch["labels"], llm.lm_head)
    (expected,) = torch.autograd.grad(whole, hidden)
    chunked = answer_loss(hidden, batch["labels"], llm.lm_head, num_chunks=num_chunks)
    (found,) = torch.autograd.grad(chunked, hidden)
    torch.testing.assert_close(chunked, whole)
    torch.testing.assert_close(found, expected)


def test_right_padding_changes_nothing(llm, batch):
    model = VisionLanguageModel(llm).eval()
    rows = [{key: batch[key][i, : 40 - 9 * i] for key in batch} for i in range(3)]
    together = model(**collate(rows))["loss"]
    tokens = [int((row["labels"][1:] != IGNORE_INDEX).sum()) for row in rows]
    apart = sum(model(**collate([row]))["loss"] * n for row, n in zip(rows, tokens, strict=True)) / sum(tokens)
    torch.testing.assert_close(together, apart, rtol=1e-5, atol=1e-6)


def test_a_batch_without_labels_has_loss_zero_and_a_gradient(llm):
    ids = torch.full((1, 4), 7)
    loss = VisionLanguageModel(llm)(ids, torch.full_like(ids, IGNORE_INDEX), num_items_in_batch=5)["loss"]
    loss.backward()
    assert loss.item() == 0.0
    assert llm.model.embed_tokens.weight.grad is not None


@pytest.mark.parametrize("num_chunks", [None, 7])
def test_label_smoothing_is_that_of_transformers_on_full_logits(llm, batch, num_chunks):
    hidden = llm.model(batch["input_ids"]).last_hidden_state.detach().requires_grad_()
    expected = LabelSmoother(epsilon=0.1)({"logits": llm.lm_head(hidden)}, batch["labels"], shift_labels=True)
    (expected_gradient,) = torch.autograd.grad(expected, hidden)
    found = answer_loss(hidden, batch["labels"], llm.lm_head, num_chunks=num_chunks, label_smoothing_factor=0.1)
    (gradient,) = torch.autograd.grad(found, hidden)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient, expected_gradient)
    plain = answer_loss(hidden, batch["labels"], llm.lm_head)
    assert not torch.allclose(found, plain)


def test_labels_are_smoothed_in_training_alone(llm, batch):
    model = VisionLanguageModel(llm)
    model.label_smoothing_factor = 0.1
    smooth, plain = model.train()(**batch)["loss"], model.eval()(**batch)["loss"]
    expected = LabelSmoother(epsilon=0.1)(llm(batch["input_ids"]), batch["labels"], shift_labels=True)
    torch.testing.assert_close(smooth, expected)
    torch.testing.assert_close(plain, llm(**batch).loss)
