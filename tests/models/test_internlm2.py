"""InternLM2 folders become the Llama class exactly, without remote code."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from mmtune.conversation import Conversation, Message
from mmtune.data.encode import encode
from mmtune.data.template import TEMPLATES
from mmtune.errors import ModelError
from mmtune.models.hub import is_hub_name
from mmtune.models.internlm2 import fuse_wqkv, llama_config, split_wqkv, to_internlm2, to_llama
from mmtune.models.language import load_llm, load_tokenizer
from mmtune.testing import INTERNLM2_SHAPE, write_internlm2

CPU = torch.device("cpu")


def load(folder, **options):
    return load_llm(str(folder), dtype=torch.float32, device=CPU, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_internlm2(tmp_path_factory.mktemp("internlm2"))


@pytest.fixture
def broken(folder, tmp_path):
    """A copy to break."""
    return shutil.copytree(folder, tmp_path / "broken")


# ---------------------------------------------------------------- against the original code's own figures


@pytest.fixture
def original(fixtures_folder):
    return fixtures_folder / "internlm2-tiny"


@pytest.mark.parametrize(("attention", "tolerance"), [("eager", 1e-5), ("sdpa", 5e-5)])
def test_logits_and_loss_are_those_of_the_original_code(original, attention, tolerance):
    expected = load_file(original / "expected_logits.safetensors")
    llm = load(original)
    llm.set_attn_implementation(attention)
    with torch.no_grad():
        out = llm(input_ids=expected["input_ids"], labels=expected["labels"], output_hidden_states=True)
    columns = expected["columns"]
    close = {"rtol": 0, "atol": tolerance}
    torch.testing.assert_close(out.logits[..., columns], expected["logits_columns"], **close)
    torch.testing.assert_close(out.logits[:, -2:], expected["logits_last2"], **close)
    torch.testing.assert_close(out.logits.logsumexp(-1), expected["logsumexp"], **close)
    torch.testing.assert_close(out.hidden_states[-1], expected["last_hidden_state"], **close)
    torch.testing.assert_close(out.loss, expected["loss"].squeeze(), **close)
    assert torch.equal(out.logits.argmax(-1), expected["argmax"])


@pytest.mark.parametrize(("attention", "tolerance"), [("eager", 1e-5), ("sdpa", 5e-5)])
def test_padding_on_the_left_gives_the_original_logits(original, attention, tolerance):
    expected = load_file(original / "expected_logits.safetensors")
    llm = load(original)
    llm.set_attn_implementation(attention)
    mask = expected["mask_leftpad"]
    positions = (mask.cumsum(-1) - 1).clamp_min(0)
    with torch.no_grad():
        logits = llm(input_ids=expected["input_ids"], attention_mask=mask, position_ids=positions).logits
    seen = mask.bool()
    ours = logits[..., expected["columns"]][seen]
    torch.testing.assert_close(ours, expected["logits_columns_leftpad"][seen], rtol=0, atol=tolerance)


def test_greedy_answers_are_the_original_ones(original):
    expected = load_file(original / "expected_logits.safetensors")
    prompt, whole = expected["greedy_prompt"], expected["greedy"]
    out = load(original).generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=12, min_new_tokens=12, do_sample=False
    )
    assert torch.equal(out, whole)


@pytest.mark.parametrize(("attention", "tolerance"), [("eager", 1e-5), ("sdpa", 5e-5)])
def test_long_inputs_stretch_the_positions_as_the_original_does(original, tmp_path, attention, tolerance):
    expected = load_file(original / "expected_logits.safetensors")
    short = shutil.copytree(original, tmp_path / "short")
    values = json.loads((short / "config.json").read_text()) | {"max_position_embeddings": 64}
    (short / "config.json").write_text(json.dumps(values))
    llm = load(short)
    llm.set_attn_implementation(attention)
    with torch.no_grad():
        logits = llm(input_ids=expected["ntk_input_ids"]).logits
    torch.testing.assert_close(logits[..., expected["columns"]], expected["ntk_logits_columns"], rtol=0, atol=tolerance)


def test_the_tokenizer_gives_the_original_ids(original, tmp_path):
    golden = json.loads((original / "tokenizer_golden.json").read_text(encoding="utf-8"))
    tokenizer = load_tokenizer(str(original))
    tokenizer.save_pretrained(tmp_path)
    assert {text: tokenizer.convert_tokens_to_ids(text) for text in golden["special"]} == golden["special"]
    for reader in (tokenizer, load_tokenizer(str(tmp_path))):
        assert len(reader) == golden["len"]
        differ = [case["text"] for case in golden["cases"] if ids_of(case["text"], reader) != case["ids_no_special"]]
        assert len(differ) == 2
        assert all("[UNUSED_TOKEN_" in text for text in differ)  # spelled out, they are text: the safer way


def ids_of(text, tokenizer):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_dialogues_get_the_original_ids(original):
    golden = json.loads((original / "tokenizer_golden.json").read_text(encoding="utf-8"))
    tokenizer = load_tokenizer(str(original))
    assert len(golden["chats"]) == 4
    for chat in golden["chats"]:
        messages = tuple(Message(turn["role"], (turn["content"],)) for turn in chat["messages"])
        prompt = {"add_generation_prompt": True} if chat["add_generation_prompt"] else {}
        if messages[-1].role == "user" and not prompt:
            continue  # half a dialogue: neither a sample nor a prompt
        sample = encode(Conversation(messages), TEMPLATES["internlm2_chat"], tokenizer, num_image_tokens=0, **prompt)
        assert sample.input_ids == chat["ids"]


# ---------------------------------------------------------------- on a folder made here


def test_names_and_matrices_come_back_exactly(folder):
    llm = load(folder)
    stored = {}
    for path in folder.glob("*.safetensors"):
        stored |= load_file(path)
    back = dict(to_internlm2(llm.state_dict(), 4, 2))
    assert back.keys() == stored.keys()
    assert all(torch.equal(back[name], stored[name]) for name in stored)
    assert dict(to_llama(stored.items(), 4, 2)).keys() == llm.state_dict().keys()


def test_each_key_value_head_holds_its_queries_then_key_then_value():
    rows = torch.tensor([10, 11, 12, 13, 50, 51, 90, 91, 20, 21, 22, 23, 60, 61, 95, 96]).float()
    fused = rows[:, None].expand(-1, 3)  # 4 query heads, 2 key-value heads, head_dim 2
    query, key, value = split_wqkv(fused, 4, 2)
    assert query[:, 0].tolist() == [10, 11, 12, 13, 20, 21, 22, 23]
    assert key[:, 0].tolist() == [50, 51, 60, 61]
    assert value[:, 0].tolist() == [90, 91, 95, 96]
    assert torch.equal(fuse_wqkv(query, key, value, 4, 2), fused)


def test_one_file_shards_and_bin_hold_the_same_model(folder, tmp_path):
    weights = {}
    for path in folder.glob("*.safetensors"):
        weights |= load_file(path)
    ids = torch.arange(3, 40)[None]
    expected = load(folder)(ids).logits
    for name in ("one", "bin", "old_bin"):
        (tmp_path / name).mkdir()
        shutil.copy(folder / "config.json", tmp_path / name)
    save_file(weights, tmp_path / "one" / "model.safetensors")
    torch.save(weights, tmp_path / "bin" / "pytorch_model.bin")
    buffer = {"model.layers.0.attention.rotary_emb.inv_freq": torch.ones(8)}
    torch.save(weights | buffer, tmp_path / "old_bin" / "pytorch_model.bin")
    for name in ("one", "bin", "old_bin"):
        assert torch.equal(load(tmp_path / name)(ids).logits, expected)


def test_saved_and_loaded_again_it_is_the_same(folder, tmp_path):
    llm = load(folder)
    llm.save_pretrained(tmp_path)
    ids = torch.arange(3, 40)[None]
    assert torch.equal(load(tmp_path)(ids).logits, llm(ids).logits)


def test_quantized_while_read_equals_quantized_by_transformers(folder, tmp_path):
    load(folder).save_pretrained(tmp_path)
    ids = torch.arange(3, 40)[None]
    ours, theirs = load(folder, quantization="nf4"), load(tmp_path, quantization="nf4")
    assert ours.is_loaded_in_4bit
    assert torch.equal(ours(ids).logits, theirs(ids).logits)


def test_the_released_shape_has_its_parameters():
    from transformers import LlamaForCausalLM

    with torch.device("meta"):
        llm = LlamaForCausalLM(llama_config(INTERNLM2_SHAPE))
    assert sum(value.numel() for value in llm.parameters()) == 1_889_110_016


# ---------------------------------------------------------------- what may be wrong with a folder


def test_a_missing_shard_is_named(broken):
    (broken / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(
        ModelError, match=r"model-00002-of-00002\.safetensors: no such file, though .*index\.json names"
    ):
        load(broken)


def test_a_cut_off_shard_is_named(broken):
    path = broken / "model-00001-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ModelError, match=r"model-00001-of-00002\.safetensors: broken or cut off \(\d+ bytes\)"):
        load(broken)


def test_a_cut_off_bin_is_named(broken):
    for path in broken.glob("model*"):
        path.unlink()
    (broken / "pytorch_model.bin").write_bytes(b"PK\x03\x04 half a file")
    with pytest.raises(ModelError, match=r"pytorch_model\.bin: broken or cut off"):
        load(broken)


def test_weights_that_are_missing_or_left_over_are_named(broken):
    path = broken / "model-00001-of-00002.safetensors"
    weights = load_file(path)
    moved = weights.pop("model.layers.0.attention.wo.weight")
    save_file(weights, path)
    with pytest.raises(ModelError, match=r"misses 1 weights \(model\.layers\.0\.self_attn\.o_proj\.weight\)"):
        load(broken)
    save_file(weights | {"model.layers.0.attention.wo.weight": moved, "model.extra.weight": moved.clone()}, path)
    with pytest.raises(ModelError, match=r"holds unknown 1 weights \(model\.extra\.weight\)"):
        load(broken)


def test_a_weight_of_another_size_is_named(broken):
    values = json.loads((broken / "config.json").read_text()) | {"intermediate_size": 80}
    (broken / "config.json").write_text(json.dumps(values))
    with pytest.raises(ModelError, match=r"is \[96, 64\] in the files, \[80, 64\] by config\.json"):
        load(broken)


def test_a_folder_without_weights_and_a_broken_config_are_named(broken):
    for path in broken.glob("model*"):
        path.unlink()
    with pytest.raises(ModelError, match="holds no weights"):
        load(broken)
    (broken / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json: cannot be read as JSON"):
        load(broken)


def test_remote_code_is_never_run(broken, monkeypatch):
    (broken / "modeling_internlm2.py").write_text("raise SystemExit('remote code was run')")
    (broken / "configuration_internlm2.py").write_text("raise SystemExit('remote code was run')")
    (broken / "tokenization_internlm2.py").write_text("raise SystemExit('remote code was run')")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked on stdin"))
    load(broken)
    load_tokenizer(str(broken))


def test_a_hub_name_that_is_not_to_be_had_says_where_it_was_looked_for(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        ModelError, match=r"'someone/model' is no folder here .* not in .*hub.* huggingface did not give"
    ):
        load("someone/model")
    with pytest.raises(ModelError, match="modelscope needs its client"):
        load("someone/model", hub="modelscope")


@pytest.mark.parametrize("name", ["internlm/internlm2-chat-1_8b", "Qwen/Qwen2.5-1.5B-Instruct"])
def test_a_name_with_points_is_a_hub_name(name):
    assert is_hub_name(name)


@pytest.mark.parametrize("name", ["models/llm.gguf", "./models/llm", "~/models/llm", "/models/llm", "llm", "a/b/c"])
def test_a_path_is_no_hub_name(name):
    assert not is_hub_name(name)
