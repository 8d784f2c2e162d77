"""What `gguf` writes answers as the run does: by transformers' own reader, and by llama.cpp where it is installed."""

import importlib.util
import json

import pytest
from gguf import GGUFReader

from mmtune.build import load_run
from mmtune.conversation import Conversation, Message
from mmtune.export.gguf_tensors import permute

QUESTIONS = ["What colour is it?", "Say red", "Who are you?"]
BY_TRANSFORMERS = """
import json, torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
folder, prompts, stops = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
llm = AutoModelForCausalLM.from_pretrained(
    folder, gguf_file="model.gguf", quantization_config=GgufConfig(dequantize=True), dtype=torch.float32)
tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file="model.gguf")
answers = []
for ids in prompts:
    ids = torch.tensor([ids])
    new = llm.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False, eos_token_id=stops)
    answers.append(tokenizer.decode(new[0, ids.shape[1]:], skip_special_tokens=True).strip())
print(json.dumps(answers))
"""


def prompt_ids(parts, question):
    prompt = Conversation((Message("user", (question,)),))
    return parts.encode(prompt, add_generation_prompt=True).input_ids


@pytest.mark.parametrize(("base", "verb"), [("internlm2", "finetune"), ("bytes", "finetune"), ("internlm2", "sft")])
def test_transformers_reads_the_answers_of_the_run(base, verb, make_run, export, chat, alone):
    run = make_run(base, verb)
    folder, told = export(run, "gguf")
    assert "8 of 8 greedy answers equal" in told
    parts = load_run(run)
    prompts = [prompt_ids(parts, question) for question in QUESTIONS]
    found = alone(BY_TRANSFORMERS, folder, json.dumps(prompts), json.dumps(sorted(parts.stop_ids)))
    assert found == [chat(run, question=question) for question in QUESTIONS]
    assert (folder / "mmproj.gguf").is_file() == (verb == "finetune")


def test_the_vocabulary_is_typed_and_stops_at_both_ids(make_run, export):
    fields = GGUFReader(export(make_run("internlm2"), "gguf")[0] / "model.gguf").fields

    def read(key):
        return fields[f"tokenizer.{key}"].contents()

    types = dict(zip(read("ggml.tokens"), read("ggml.token_type"), strict=True))
    assert len(types) == 512
    kinds = {"<unk>": 2, "<s>": 3, "<|im_end|>": 3, "<0x0A>": 6, "[UNUSED_TOKEN_0]": 5, "the": 1}
    assert {token: types[token] for token in kinds} == kinds
    assert (read("ggml.model"), read("ggml.eos_token_id"), read("ggml.eot_token_id")) == ("llama", 2, 510)
    assert (read("ggml.add_bos_token"), read("ggml.add_space_prefix")) == (True, False)
    fields = GGUFReader(export(make_run("bytes"), "gguf", "--overwrite")[0] / "model.gguf").fields
    assert (read("ggml.model"), read("ggml.add_bos_token")) == ("gpt2", False)


def test_the_modelfile_has_the_template_and_the_stops(make_run, export):
    folder, _ = export(make_run("bytes"), "gguf")
    assert (folder / "Modelfile").read_text() == (
        "FROM ./model.gguf\nFROM ./mmproj.gguf\n"
        'TEMPLATE """{{ if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n'
        "{{ end }}{{ if .Prompt }}<|im_start|>user\n{{ .Prompt }}<|im_end|>\n<|im_start|>assistant\n{{ end }}"
        '{{ .Response }}<|im_end|>\n"""\nPARAMETER stop "<|im_end|>"\nPARAMETER stop "</s>"\nPARAMETER temperature 0\n'
    )


def test_16_bit_files(make_run, export):
    run = make_run("bytes")
    sizes = {}
    for dtype in ("float32", "float16", "bfloat16"):
        folder, _ = export(run, "gguf", "--dtype", dtype, "--overwrite")
        kinds = {tensor.tensor_type.name for tensor in GGUFReader(folder / "model.gguf").tensors}
        assert kinds == {"F32"} | ({{"float16": "F16", "bfloat16": "BF16"}[dtype]} if dtype != "float32" else set())
        sizes[dtype] = sum(tensor.n_bytes for tensor in GGUFReader(folder / "model.gguf").tensors)
    assert sizes["float16"] == sizes["bfloat16"] < 0.55 * sizes["float32"]


def test_rows_are_permuted_from_halves_to_neighbours():
    import torch

    rows = torch.arange(8.0)[:, None]
    assert permute(rows, 2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_refusals(make_run, refused):
    run = make_run("bytes", "pretrain", name="linear-gguf", projector={"kind": "linear"})
    message = refused(run, "gguf")
    assert message == f"{run}: its projector is linear; llama.cpp has mlp2x_gelu alone. Take --format hf-llava."


# ---------------------------------------------------------------- by llama.cpp itself

BY_LLAMA_CPP = """
import base64, json
folder, question, before, after, prompt, *images = sys.argv[1:]
from llama_cpp import Llama
from llama_cpp.llama_chat_format import Llava15ChatHandler
class Handler(Llava15ChatHandler):
    DEFAULT_SYSTEM_MESSAGE = None
    CHAT_FORMAT = ("{% for message in messages %}{{ BEFORE }}{% for part in message.content %}"
        "{{ part.image_url.url ~ '\\n' if part.type == 'image_url' else part.text }}{% endfor %}{{ AFTER }}{% endfor %}"
    ).replace("BEFORE", json.dumps(before)).replace("AFTER", json.dumps(after))
handler = Handler(clip_model_path=folder + "/mmproj.gguf", verbose=False)
llm = Llama(folder + "/model.gguf", chat_handler=handler, n_ctx=512, n_threads=1, verbose=False)
answers = []
for path in images:
    url = "data:image/png;base64," + base64.b64encode(open(path, "rb").read()).decode()
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": question}]
    told = llm.create_chat_completion([{"role": "user", "content": content}], temperature=0.0, max_tokens=12, top_k=1)
    answers.append(told["choices"][0]["message"]["content"].strip())
ids = llm.tokenize(prompt.encode(), add_bos=False, special=True)
print()
print(json.dumps({"answers": answers, "ids": ids}))
"""


@pytest.mark.slow
def test_llama_cpp_reads_the_prompts_and_sees_the_pictures(make_run, export, chat, alone, bench):
    if importlib.util.find_spec("llama_cpp") is None:
        pytest.skip("llama-cpp-python is not installed (pip install llama-cpp-python compiles llama.cpp)")
    run = make_run("internlm2")
    folder, _ = export(run, "gguf")
    parts = load_run(run)
    before, after = parts.template.user.split("{text}")
    question = "What colour is it?"
    images = [bench / f"{number}.png" for number in range(3)]
    prompt = f"<s>{before}{question} The cat, 42.{after}"
    found = alone(BY_LLAMA_CPP, folder, question, before, after, prompt, *images)
    assert found["ids"] == prompt_ids(parts, f"{question} The cat, 42.")
    assert found["answers"] == [chat(run, image) for image in images]
