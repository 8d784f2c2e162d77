"""What `merged` writes has the logits of the run, in Llama's layout and in InternLM2's."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from mmtune.build import load_run
from mmtune.conversation import Conversation, Message
from mmtune.models.checkpoint_files import read_weights
from mmtune.models.language import load_llm, load_tokenizer

CPU = torch.device("cpu")
PROMPT = Conversation((Message("system", ("Be brief.",)), Message("user", ("What is a cat?",))))


@torch.no_grad()
def run_logits(run):
    parts = load_run(run, device=CPU)
    ids = torch.tensor([parts.encode(PROMPT, add_generation_prompt=True).input_ids])
    return ids, parts.model.llm(input_ids=ids).logits


@pytest.mark.parametrize(
    ("base", "verb"), [("internlm2", "finetune"), ("internlm2", "sft"), ("bytes", "finetune"), ("bytes", "pretrain")]
)
def test_the_logits_are_those_of_the_run(base, verb, make_run, export):
    run = make_run(base, verb)
    folder, told = export(run, "merged")
    asked = 8 if verb == "sft" else 6
    assert f"{asked} of {asked} greedy answers equal" in told
    ids, expected = run_logits(run)
    llm = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(llm(ids).logits, expected, rtol=0, atol=2e-5)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is a cat?"}]
    assert tokenizer.apply_chat_template(messages)["input_ids"] == ids[0].tolist()
    assert len(llm.generation_config.eos_token_id) == 2


def test_internlm2_names_and_files_come_back(make_run, export, bench):
    run = make_run("internlm2")
    folder, told = export(run, "merged", "--layout", "internlm2")
    assert "6 of 6 greedy answers equal" in told
    base = dict(read_weights(bench / "internlm2"))
    ours = dict(read_weights(folder))
    assert {name: value.shape for name, value in ours.items()} == {name: value.shape for name, value in base.items()}
    changed = {name.split(".")[-2] for name in base if not torch.equal(base[name], ours[name])}
    assert changed == {"wqkv", "wo", "w1", "w2", "w3"}
    assert (folder / "tokenizer.model").read_bytes() == (bench / "internlm2" / "tokenizer.model").read_bytes()
    config = json.loads((folder / "config.json").read_text())
    assert config == json.loads((bench / "internlm2" / "config.json").read_text())
    ids, expected = run_logits(run)
    llm = load_llm(str(folder), dtype=torch.float32, device=CPU)
    with torch.no_grad():
        torch.testing.assert_close(llm(ids).logits, expected, rtol=0, atol=2e-5)
    assert load_tokenizer(str(folder))("<|im_end|> a")["input_ids"][0] == 510


def test_a_4_bit_run_is_merged_into_either_base(make_run, export):
    run = make_run("internlm2", name="nf4", settings={"quantization": "nf4"})
    ids, expected = run_logits(run)
    found = {}
    for base in ("dequantized", "original"):
        folder, told = export(run, "merged", "--base", base, "--overwrite")
        assert "6 of 6 greedy answers equal" in told
        with torch.no_grad():
            found[base] = (AutoModelForCausalLM.from_pretrained(folder)(ids).logits - expected).abs().max().item()
    assert found["dequantized"] < 1e-4 < 0.01 < found["original"]
    told = json.loads((folder / "mmtune_export.json").read_text())["largest_logit_differences"]
    assert told["dequantized against 4-bit"] < 1e-4 < 0.01 < told["original against dequantized"]


def test_refusals(make_run, refused, tmp_path, export):
    run = make_run("bytes")
    assert "--layout: internlm2 needs an InternLM2 base (model_type 'llama' in " in refused(
        run, "merged", "--layout", "internlm2"
    )
    assert refused(run, "hf-llava", "--layout", "internlm2") == (
        "--layout: internlm2 is a layout of --format merged, not of hf-llava. Leave it out."
    )
    assert not (tmp_path / "refused").exists()
    (tmp_path / "refused").mkdir()
    (tmp_path / "refused" / "mine.txt").write_text("mine")
    assert refused(run, "merged") == f"--output: {tmp_path / 'refused'} is not empty. Name another --output."
    message = refused(run, "merged", "--overwrite")
    assert "holds files but no export, so --overwrite leaves it alone." in message
    assert (tmp_path / "refused" / "mine.txt").read_text() == "mine"


def test_only_an_export_is_overwritten(make_run, export, refused, tmp_path):
    run = make_run("bytes")
    folder, _ = export(run, "merged")
    (folder / "left_over.txt").write_text("x")
    folder.rename(tmp_path / "refused")
    assert refused(run, "merged").endswith("--overwrite replaces it, or name another --output.")
    export(run, "merged", "--output", tmp_path / "refused", "--overwrite")
    assert not (tmp_path / "refused" / "left_over.txt").exists()


def test_an_export_that_answers_otherwise_is_kept_and_refused(make_run, refused, tmp_path, monkeypatch):
    """Mend nothing but the weights on disk, as a broken disk or library would."""
    from safetensors.torch import load_file, save_file

    from mmtune.export import formats

    def spoil(folder):
        weights = load_file(folder / "model.safetensors")
        weights["model.norm.weight"] += 0.5
        save_file(weights, folder / "model.safetensors", {"format": "pt"})

    monkeypatch.setattr(formats, "use_default_modes", spoil)
    message = refused(make_run("bytes"), "merged")
    assert message.startswith(f"{tmp_path / 'refused'}: does not answer as ")
    assert message.endswith("It is kept; do not use it.")
    assert (tmp_path / "refused" / "model.safetensors").is_file()
