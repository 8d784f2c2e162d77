"""Modes, random generators and gradients are as before."""

import random

import numpy as np
import pytest
import torch

from mmtune.build import build_parts
from mmtune.chat.generate import Decoding
from mmtune.chat.session import ChatSession
from mmtune.config import load_config
from mmtune.training.undisturbed import undisturbed

LORA = ("model.llm.tune=adapter", "model.adapter={kind: lora, r: 2, lora_dropout: 0.5}")


@pytest.fixture
def parts(config_file):
    return build_parts(load_config(config_file(*LORA), [], "sft").model, torch.device("cpu"))


@pytest.fixture
def model(parts):
    return parts.model


def draws():
    return random.random(), np.random.rand(), float(torch.rand(()))


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_left_behind(model, fails):
    model.train()
    model.projector.eval()
    modes = [module.training for module in model.modules()]
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = draws()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    try:
        with undisturbed(model):
            assert not any(module.training for module in model.modules())
            assert not torch.is_grad_enabled()
            draws()
            assert not fails
    except AssertionError:
        assert fails
    assert [module.training for module in model.modules()] == modes
    assert torch.is_grad_enabled()
    assert draws() == expected


def test_what_a_model_keeps_of_an_answer_is_not_in_the_way_of_the_next_backward_pass(parts):
    """Positions and states of quantization are kept from call to call: none may be a tensor of inference mode."""
    kept = []
    hook = parts.model.base_llm.get_decoder().register_forward_hook(lambda *given: kept.append(given[-1][0]))
    with undisturbed(parts.model):
        ChatSession(parts, Decoding(max_new_tokens=4)).ask("Hi")
    hook.remove()
    assert len(kept) == 4
    assert not any(value.is_inference() for value in kept)
    ids = torch.randint(0, 99, (1, 12))
    parts.model.train()(ids, ids)["loss"].backward()
