"""Virtual tokens stand in front of each sample: in rows of many, in padded prompts, with images."""

import pytest
import torch

from mmtune.build import build_parts
from mmtune.chat.exchange import question_message
from mmtune.chat.generate import Decoding, embed_images, generate_ids
from mmtune.conversation import Conversation
from mmtune.models.prompts import put_before_prompts, put_before_samples
from mmtune.schema import LLMConfig, ModelConfig, ProjectorConfig, VisionConfig

ADAPTERS = {
    "prompt_tuning": {"kind": "prompt_tuning", "num_virtual_tokens": 3},
    "p_tuning": {"kind": "p_tuning", "num_virtual_tokens": 3, "encoder_hidden_size": 16},
    "prefix_tuning": {"kind": "prefix_tuning", "num_virtual_tokens": 3},
}


IN_ROWS = ("prompt_tuning", "p_tuning")  # prefix tuning trains on rows of one sample


@pytest.fixture(params=ADAPTERS)
def parts(request, tiny):
    torch.manual_seed(0)
    llm = LLMConfig(name_or_path=str(tiny.llm), chat_template="chatml", tune="adapter")
    vision = VisionConfig(source="transformers", name=str(tiny.clip))
    config = ModelConfig(llm=llm, vision=vision, projector=ProjectorConfig(), adapter=ADAPTERS[request.param])
    built = build_parts(config, torch.device("cpu"))
    built.model.eval()
    return built


def prompt_of(parts, text, has_image):
    message = question_message(text, ("x.png",) if has_image else ())
    return parts.encode(Conversation((message,)), add_generation_prompt=True).input_ids


@pytest.mark.parametrize("parts", ["prefix_tuning"], indirect=True)
def test_a_prefix_starts_as_real_tokens_and_not_as_noise(parts):
    keys = parts.model.llm.get_prompt(1).layers[0].keys
    embeddings = parts.model.base_llm.get_input_embeddings().weight
    attention = parts.model.base_llm.get_decoder().layers[0]
    norm, k_proj = attention.input_layernorm, attention.self_attn.k_proj
    possible = k_proj(norm(embeddings)).view(len(embeddings), keys.shape[1], -1)
    # The first virtual token stands at position 0, where the rotation of keys is none.
    distances = (possible - keys[0, :, 0]).flatten(1).norm(dim=1)
    assert distances.min() < 1e-5


@torch.no_grad()
def greedy(parts, ids, image, num_tokens):
    """Answer one prompt by the forward pass of training, token by token."""
    model, answer, stops = parts.model, [], parts.stop_ids
    for _ in range(num_tokens):
        hidden = model.hidden_states(model.embed(torch.tensor([ids + answer]), image))
        answer.append(int(model.base_llm.get_output_embeddings()(hidden[:, -1]).argmax()))
        if answer[-1] in stops:
            break
    return answer


def test_answers_are_what_the_training_pass_finds_likeliest(parts):
    image = embed_images(parts, torch.randn(1, 3, 32, 32))
    prompts = [prompt_of(parts, "What colour is this?", True), prompt_of(parts, "Hi", False)]
    found = generate_ids(parts, prompts, [image, None], Decoding(max_new_tokens=6))
    assert found == [greedy(parts, prompts[0], image, 6), greedy(parts, prompts[1], None, 6)]


def test_the_adapter_is_read(parts):
    prompt = prompt_of(parts, "Hi", False)
    before = parts.model.hidden_states(parts.model.embed(torch.tensor([prompt])))
    with torch.no_grad():
        parts.model.llm.prompt_encoder["default"].embedding.weight.mul_(3)
    after = parts.model.hidden_states(parts.model.embed(torch.tensor([prompt])))
    assert not torch.allclose(before, after, atol=1e-3)


@pytest.mark.parametrize("parts", IN_ROWS, indirect=True)
@torch.no_grad()
def test_a_row_of_samples_equals_each_alone(parts):
    model = parts.model
    ids = torch.arange(5, 21)[None]
    lengths = (7, 9)
    positions = torch.cat([torch.arange(7), torch.arange(9)])[None]
    row = model.hidden_states(model.embed(ids), positions, lengths)
    alone = [model.hidden_states(model.embed(part)) for part in ids.split(lengths, dim=1)]
    torch.testing.assert_close(row, torch.cat(alone, dim=1), rtol=1e-5, atol=1e-5)


def test_where_virtual_tokens_go():
    virtual = torch.full((2, 1), 9.0)
    row = torch.arange(1.0, 6).reshape(1, 5, 1)
    longer, positions, lengths, is_own = put_before_samples(row, virtual, (2, 3))
    assert longer[0, :, 0].tolist() == [9, 9, 1, 2, 9, 9, 3, 4, 5]
    assert positions[0].tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 4]
    assert lengths == (4, 5)
    assert longer[:, is_own].equal(row)
    padded = torch.tensor([[0.0, 1, 2], [3, 4, 5]])[:, :, None]
    rows, mask = put_before_prompts(padded, torch.tensor([[0, 1, 1], [1, 1, 1]]), virtual)
    assert rows[:, :, 0].tolist() == [[0, 9, 9, 1, 2], [9, 9, 3, 4, 5]]
    assert mask.tolist() == [[0, 1, 1, 1, 1], [1, 1, 1, 1, 1]]
