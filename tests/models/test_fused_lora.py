"""LoRA in one step: what PEFT computes, in values and gradients, and nothing else touched."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mmtune.models.adapters import attach_adapter
from mmtune.models.fused_lora import LoRALinear, fuse_lora
from mmtune.models.language import load_llm
from mmtune.testing import write_tiny_llm

SHAPE = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
NUM_LAYERS = 14  # q, k, v, o, gate, up, down of two blocks


def model_of(dtype=torch.float32, bias=False, **options):
    torch.manual_seed(0)
    config = LlamaConfig(**SHAPE, num_attention_heads=4, attention_bias=bias, mlp_bias=bias)
    llm = LlamaForCausalLM(config).to(dtype).requires_grad_(False)
    return attach_adapter(llm, {"kind": "lora", "r": 4, "init_lora_weights": False, **options}).train()


def loss_and_gradients(llm, seed=0):
    torch.manual_seed(seed)
    ids = torch.randint(0, 64, (2, 20))
    llm.zero_grad()
    embeds = llm.get_input_embeddings()(ids).detach().requires_grad_()
    loss = llm(inputs_embeds=embeds, labels=ids, use_cache=False).loss
    loss.backward()
    found = {name: value.grad.clone() for name, value in llm.named_parameters() if value.grad is not None}
    return loss.detach(), found | {"embeds": embeds.grad.clone()}


def assert_same(found, expected, rtol, atol):
    torch.testing.assert_close(found[0], expected[0], rtol=rtol, atol=atol)
    assert found[1].keys() == expected[1].keys()
    for name, value in expected[1].items():
        torch.testing.assert_close(found[1][name], value, rtol=rtol, atol=atol, msg=name)


def test_the_gradients_are_those_of_the_definition():
    base = torch.nn.Linear(6, 5, dtype=torch.float64).requires_grad_(False)
    x, dropped = (torch.randn(7, 6, dtype=torch.float64, requires_grad=True) for _ in range(2))
    a = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    b = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *given: LoRALinear.apply(*given, 0.5, base), (x, dropped, a, b))
    assert torch.autograd.gradcheck(lambda x, a, b: LoRALinear.apply(x, x, a, b, 0.5, base), (x, a, b))


@pytest.mark.parametrize("options", [{}, {"lora_alpha": 16}, {"lora_dropout": 0.3}, {"use_rslora": True}], ids=str)
@pytest.mark.parametrize("bias", [False, True])
def test_it_equals_peft(options, bias):
    llm = model_of(bias=bias, **options)
    expected = loss_and_gradients(llm)
    assert fuse_lora(llm) == NUM_LAYERS
    assert_same(loss_and_gradients(llm), expected, rtol=1e-4, atol=1e-6)


def test_over_4_bit_weights(tmp_path):
    llm = load_llm(str(write_tiny_llm(tmp_path, hidden_size=64, intermediate_size=128)), dtype=torch.float32,
                   device=torch.device("cpu"), quantization="nf4")  # fmt: skip
    llm = attach_adapter(llm, {"kind": "lora", "r": 4, "init_lora_weights": False}).train()
    expected = loss_and_gradients(llm)
    assert fuse_lora(llm) == NUM_LAYERS
    assert_same(loss_and_gradients(llm), expected, rtol=1e-4, atol=1e-6)


def test_in_bfloat16_the_adapter_stays_fp32_and_computes_in_bfloat16():
    llm = model_of(torch.bfloat16)
    exact = loss_and_gradients(model_of(torch.float32))
    assert fuse_lora(llm) == NUM_LAYERS
    found = loss_and_gradients(llm)
    for name, value in llm.named_parameters():
        if value.requires_grad:
            assert value.dtype == value.grad.dtype == torch.float32
            error = (found[1][name] - exact[1][name]).norm() / exact[1][name].norm()
            assert error < 0.1, name


def test_with_gradient_checkpointing():
    llm = model_of()
    expected = loss_and_gradients(llm)
    fuse_lora(llm)
    llm.get_base_model().activation_checkpointing_enable({"use_reentrant": False})
    assert_same(loss_and_gradients(llm), expected, rtol=1e-4, atol=1e-6)


def test_merged_and_disabled_adapters_are_pefts(tmp_path):
    llm = model_of().eval()
    ids = torch.arange(12)[None]
    with torch.no_grad():
        with llm.disable_adapter():
            plain = llm(ids).logits
        expected = llm(ids).logits
        fuse_lora(llm)
        torch.testing.assert_close(llm(ids).logits, expected, rtol=1e-4, atol=1e-5)
        with llm.disable_adapter():
            assert torch.equal(llm(ids).logits, plain)
        llm.merge_adapter()
        torch.testing.assert_close(llm(ids).logits, expected, rtol=1e-3, atol=1e-4)
        llm.unmerge_adapter()
        torch.testing.assert_close(llm(ids).logits, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("options", [{"use_dora": True}, {"lora_bias": True}], ids=str)
def test_variants_stay_as_they_are(options):
    assert fuse_lora(model_of(**options)) == 0


def test_nothing_as_large_as_the_output_is_kept():
    """Of a layer the backward pass keeps its input, the adapter and the small inner product."""
    base = torch.nn.Linear(64, 64).requires_grad_(False)
    x = torch.randn(512, 64, requires_grad=True)
    a, b = torch.randn(4, 64, requires_grad=True), torch.randn(64, 4, requires_grad=True)
    kept = {}

    def keep(tensor):
        kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        LoRALinear.apply(x, x, a, b, 1.0, base)
    assert sorted(kept.values()) == sorted([x.numel(), a.numel(), b.numel(), 512 * 4])
