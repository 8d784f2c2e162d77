"""What chats without a run folder: language models as published, and exports, which answer as their run does."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from talk_workspace import TURNS, at_home, chat, home, parts

from mmtune.build import load_run
from mmtune.build_folder import is_model, load_model
from mmtune.chat.generate import Decoding
from mmtune.chat.session import ChatSession
from mmtune.cli import main
from mmtune.testing import write_internlm2

__all__ = ["at_home", "chat", "home", "parts"]

CPU = torch.device("cpu")
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def exported(home):
    """The run as `hf-llava`, and as `merged`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        for name in ("hf-llava", "merged"):
            assert main(["export", "run", "--format", name, "--output", name]) == 0
    return home


def test_an_export_that_sees_answers_as_its_run(exported, at_home, chat):
    lines = ["What colour?", "'my blue.png' And this?", "Sure?"]
    of_run = chat("run", "--image", "red.png", lines=lines)
    assert of_run[:2] == (0, "".join(f"{answer}\n" for _, answer in TURNS))
    of_export = chat("hf-llava", "--image", "red.png", "--system", "Be brief.", lines=lines)
    assert of_export[:2] == of_run[:2]
    parts, original = load_model("hf-llava", device=CPU), load_run("run", device=CPU)
    assert parts.transform == original.transform
    assert parts.num_image_tokens == original.num_image_tokens
    ids = [ChatSession(each, Decoding(max_new_tokens=1), "Be brief.") for each in (parts, original)]
    for session in ids:
        session.ask("<image> </s> What?", ("red.png",))
    assert ids[0].ids == ids[1].ids
    assert torch.allclose(ids[0].image_embeds, ids[1].image_embeds, atol=1e-5)


def test_a_merged_export_is_a_language_model(exported, at_home, chat):
    code, out, _ = chat("merged", "--prompt", "Sure?", "--system", "Be brief.")
    assert (code, out) == chat("run", "--prompt", "Sure?")[:2]
    code, out, err = chat("merged", "--image", "red.png", "--prompt", "What?")
    assert (code, out) == (2, "")
    assert "mmtune: --image: this model was trained on text alone and cannot see. Leave --image out." in err
    code, _, err = chat("merged", lines=["/image red.png", "/adapter", "/before", "/after"])
    assert code == 2
    assert "mmtune: /image: this model was trained on text alone and cannot see." in err
    for command in ("/adapter", "/before", "/after"):
        assert f"mmtune: {command}: this model is no run and answers alone. Start the chat with a run folder." in err


def test_an_untrained_base_asks_for_its_template_or_brings_it(at_home, chat):
    code, _, err = chat("llm", "--prompt", "Hi")
    assert code == 2
    assert "mmtune: --chat-template: llm has no chat template of its own. Name one whose tokens it has: " in err
    code, out, _ = chat("llm", "--prompt", "Hi", "--chat-template", "chatml")
    assert code == 0
    shutil.copytree("llm", "llm_chat", dirs_exist_ok=True)
    Path("llm_chat/chat_template.jinja").write_text(CHATML)
    assert chat("llm_chat", "--prompt", "Hi")[:2] == (0, out)
    code, _, err = chat("llm", "--prompt", "Hi", "--chat-template", "chatlm")
    assert "mmtune: --chat-template: unknown name 'chatlm'. Did you mean 'chatml'?" in err


def test_internlm2_as_published(tmp_path, chat):
    folder = write_internlm2(tmp_path / "internlm2")
    code, _, _ = chat(folder, "--chat-template", "internlm2_chat", "--prompt", "What is the cat?")
    assert code == 0


def test_a_language_model_in_4_bits(at_home):
    plain = load_model("llm", template="chatml", device=CPU)
    quantized = load_model("llm", template="chatml", quantization="nf4", device=CPU)
    assert "Linear4bit" in {type(module).__name__ for module in quantized.model.modules()}
    ids = torch.arange(9)[None]
    one, other = (each.model.hidden_states(each.model.embed(ids)) for each in (plain, quantized))
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"vision_feature_select_strategy": "full"}, "vision_feature_select_strategy: 'full'. Only 'default' is read"),
        ({"projector_hidden_act": "relu"}, "config.json has projector_hidden_act: 'relu'. Only 'gelu' is read here."),
    ],
)
def test_another_llava_is_refused(exported, at_home, chat, tmp_path, change, words):
    folder = tmp_path / "other"
    shutil.copytree("hf-llava", folder)
    config = json.loads((folder / "config.json").read_text()) | change
    (folder / "config.json").write_text(json.dumps(config))
    code, _, err = chat(folder, "--prompt", "Hi")
    assert code == 2
    assert words in err


def test_a_llava_that_crops_is_refused(exported, at_home, chat, tmp_path):
    folder = tmp_path / "other"
    shutil.copytree("hf-llava", folder)
    path = folder / "processor_config.json"
    values = json.loads(path.read_text())
    values["image_processor"]["do_pad"] = False
    path.write_text(json.dumps(values))
    code, _, err = chat(folder, "--prompt", "Hi")
    assert code == 2
    assert "prepares images without padding them to a square (do_pad: false), which is not done here." in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("hf-llava --4bit", "--4bit: hf-llava is an export in float32. Chat with its run in 4 bits instead."),
        ("merged --llm x", "--llm: it is for runs, and merged is a model without a run. Leave it out."),
        ("merged --adapters run", "--adapters: it is for runs, and merged is a model without a run. Leave it out."),
    ],
)
def test_options_of_runs_are_refused(exported, at_home, chat, words, message):
    code, out, err = chat(*words.split())
    assert (code, out) == (2, "")
    assert f"mmtune: {message}" in err


def test_a_run_is_no_model(at_home):
    assert not is_model("run")
    assert not is_model("nope")
    assert not is_model("runs/nope")
    assert is_model("llm")
