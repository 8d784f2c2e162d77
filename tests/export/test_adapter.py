"""What `adapter` writes loads with PEFT alone and has the logits of the run."""

import json

import pytest
import torch

from mmtune.build import load_run
from mmtune.conversation import Conversation, Message

ALONE = """
import json, torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer
folder, question = sys.argv[1:]
llm = AutoPeftModelForCausalLM.from_pretrained(folder)
ids = AutoTokenizer.from_pretrained(folder).apply_chat_template([{"role": "user", "content": question}])["input_ids"]
with torch.no_grad():
    logits = llm(input_ids=torch.tensor([ids])).logits[0, -1]
print(json.dumps({"ids": ids, "logits": logits.tolist()}))
"""


@pytest.mark.parametrize(("base", "verb"), [("internlm2", "finetune"), ("bytes", "sft")])
def test_peft_alone_gives_the_logits_of_the_run(base, verb, make_run, export, alone):
    run = make_run(base, verb)
    folder, told = export(run, "adapter")
    assert "greedy answers equal" in told
    found = alone(ALONE, folder, "Who?")
    parts = load_run(run, device=torch.device("cpu"))
    prompt = Conversation((Message("user", ("Who?",)),))
    ids = parts.encode(prompt, add_generation_prompt=True).input_ids
    assert found["ids"] == ids
    with torch.no_grad():
        expected = parts.model.llm(input_ids=torch.tensor([ids])).logits[0, -1]
    torch.testing.assert_close(torch.tensor(found["logits"]), expected, rtol=0, atol=2e-5)


def test_the_base_is_named_and_for_internlm2_written_in_a_layout_that_peft_loads(make_run, export, bench):
    folder, _ = export(make_run("bytes", "sft"), "adapter")
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == str(bench / "bytes")
    folder, _ = export(make_run("internlm2"), "adapter")
    named = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert named == str(folder / "base_llama")
    assert "in the layout of Llama" in (folder / "README.md").read_text()


def test_a_4_bit_run_answers_on_its_4_bit_base(make_run, export):
    _, told = export(make_run("internlm2", name="nf4", settings={"quantization": "nf4"}), "adapter")
    assert "6 of 6 greedy answers equal" in told


def test_refusals(make_run, refused):
    message = refused(make_run("bytes", "pretrain"), "adapter")
    assert message.endswith("holds no adapter of PEFT (model.llm.tune: frozen). Take --format merged.")
    message = refused(make_run("bytes"), "adapter", "--dtype", "bfloat16")
    assert message == "--dtype: an adapter keeps the dtype that it was trained in. Leave it out."
