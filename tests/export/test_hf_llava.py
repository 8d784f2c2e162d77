"""What `hf-llava` writes answers in transformers alone as `mmtune chat` does."""

import json

import pytest
from safetensors.torch import load_file

from mmtune.build import load_run

ALONE = """
import json
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration
folder, question, *images = sys.argv[1:]
processor = AutoProcessor.from_pretrained(folder)
model = LlavaForConditionalGeneration.from_pretrained(folder)
answers = []
for path in [None, *images]:
    content = [{"type": "image"}] * (path is not None) + [{"type": "text", "text": question}]
    text = processor.apply_chat_template([{"role": "user", "content": content}])
    inputs = processor(text=text, images=Image.open(path) if path else None, return_tensors="pt")
    ids = model.generate(**inputs, max_new_tokens=12)[0, inputs["input_ids"].shape[1]:].tolist()
    answers.append(processor.decode(ids, skip_special_tokens=True).strip())
print(json.dumps({"answers": answers, "stops": model.generation_config.eos_token_id}))
"""


@pytest.mark.parametrize("llm", ["internlm2", "bytes"])
def test_transformers_alone_gives_the_answers_of_chat(llm, make_run, export, chat, alone, bench):
    run = make_run(llm)
    folder, told = export(run, "hf-llava")
    assert "8 of 8 greedy answers equal" in told
    images = [bench / f"{number}.png" for number in range(3)]
    question = "What colour is it?"
    found = alone(ALONE, folder, question, *images)
    assert found["answers"] == [chat(run, image, question) for image in [None, *images]]
    assert len(set(found["answers"])) > 1
    tokenizer = load_run(run).tokenizer
    assert sorted(found["stops"]) == sorted([tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|im_end|>")])


def test_the_image_token_takes_an_unused_one_or_a_new_row(make_run, export):
    folder, _ = export(make_run("internlm2"), "hf-llava")
    config = json.loads((folder / "config.json").read_text())
    assert config["text_config"]["vocab_size"] == 512  # nothing was resized
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    assert tokenizer["model"]["vocab"]["<image>"] == config["image_token_index"]
    assert "[UNUSED_TOKEN_0]" not in tokenizer["model"]["vocab"]
    folder, _ = export(make_run("bytes"), "hf-llava")
    config = json.loads((folder / "config.json").read_text())
    assert (config["image_token_index"], config["text_config"]["vocab_size"]) == (261, 262)
    rows = load_file(folder / "model.safetensors")
    (head,) = (value for name, value in rows.items() if name.endswith("lm_head.weight"))
    assert head[261].allclose(head[:261].mean(0), atol=1e-6)


def test_a_standardized_and_a_linear_projector_are_held_exactly(make_run, export):
    for name, projector in (("standardized", {"standardize": True}), ("linear", {"kind": "linear"})):
        _, told = export(make_run("bytes", name=name, projector=projector), "hf-llava")
        assert "8 of 8 greedy answers equal" in told


def test_other_dtypes_are_written_as_asked(make_run, export):
    folder, told = export(make_run("bytes"), "hf-llava", "--dtype", "bfloat16")
    assert "allowed" in told
    assert {str(value.dtype) for value in load_file(folder / "model.safetensors").values()} == {"torch.bfloat16"}


def test_what_it_cannot_hold_is_refused_in_one_line(make_run, refused):
    run = make_run("bytes", "sft")
    assert refused(run, "hf-llava") == (
        f"{run}: was trained on text alone, and hf-llava holds a model that sees. Take --format merged or adapter."
    )
    settings = {"source": "efficientnet", "name": "efficientnet_lite0"}
    run = make_run("bytes", "pretrain", name="efficientnet", vision=settings)
    assert refused(run, "hf-llava") == (
        f"{run}: sees with 'efficientnet_lite0' (source efficientnet), and hf-llava holds CLIP towers alone."
        " Take --format merged or adapter for its language model."
    )
