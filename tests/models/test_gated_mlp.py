"""MLPs that keep less for the backward pass: the same gradients, fewer bytes, and no other model touched."""

import pytest
import torch
from transformers import GemmaConfig, GemmaForCausalLM, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from mmtune.models.adapters import attach_adapter
from mmtune.models.gated_mlp import SwiGLU, recompute_gated_activations

SHAPE = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}


def test_the_gradients_are_those_of_the_definition():
    gate, up = (torch.randn(5, 7, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(SwiGLU.apply, (gate, up))
    torch.testing.assert_close(SwiGLU.apply(gate, up), torch.nn.functional.silu(gate) * up, rtol=0, atol=0)


def loss_gradients_and_bytes(llm, ids):
    """The loss, all gradients, and the distinct bytes that autograd keeps for the backward pass."""
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    llm.zero_grad()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = llm(input_ids=ids, labels=ids, use_cache=False).loss
    loss.backward()
    gradients = {name: value.grad.clone() for name, value in llm.named_parameters() if value.grad is not None}
    return loss.detach(), gradients, sum(kept.values())


@pytest.mark.parametrize("kind", ["full", "lora"])
@pytest.mark.parametrize("make", [
    lambda: LlamaForCausalLM(LlamaConfig(**SHAPE, **HEADS)), lambda: Qwen2ForCausalLM(Qwen2Config(**SHAPE, **HEADS))
], ids=["llama", "qwen2"])  # fmt: skip
def test_a_model_learns_the_same_and_keeps_less(make, kind):
    torch.manual_seed(0)
    llm = make()
    if kind == "lora":
        llm = attach_adapter(llm.requires_grad_(False), {"kind": "lora", "r": 4, "init_lora_weights": False})
    ids = torch.randint(0, 64, (2, 40))
    loss, gradients, num_bytes = loss_gradients_and_bytes(llm, ids)
    assert recompute_gated_activations(llm) == 2
    found = loss_gradients_and_bytes(llm, ids)
    assert torch.equal(found[0], loss)
    for name, value in gradients.items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-4, atol=1e-7, msg=name)
    assert num_bytes - found[2] == 2 * 2 * 40 * 48 * 4  # two blocks, two rows, the activation in fp32


def test_other_activations_and_other_forward_passes_stay():
    gemma = GemmaForCausalLM(GemmaConfig(**SHAPE, **HEADS, head_dim=8))
    assert recompute_gated_activations(gemma) == 0
    llama = LlamaForCausalLM(LlamaConfig(**SHAPE, **HEADS))
    forward = llama.model.layers[0].mlp.forward
    llama.model.layers[0].mlp.forward = lambda x: 2 * forward(x)
    assert recompute_gated_activations(llama) == 1
