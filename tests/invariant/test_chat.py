"""What chat reads is what training read; what was saved answers as before it was saved."""

import json
from pathlib import Path

import pytest
import torch

from mmtune.build import build_parts, load_run
from mmtune.chat.generate import Decoding
from mmtune.chat.session import ChatSession
from mmtune.cli import main
from mmtune.config import load_config
from mmtune.conversation import Conversation, ImageSlot, Message
from mmtune.data.encode import text_ids
from mmtune.data.formats import parse_record
from mmtune.data.records import read_records
from mmtune.evaluate.asking import Asker


@pytest.fixture
def run(workspace):
    assert main(["pretrain", "pretrain.yaml"]) == 0
    assert main(["finetune", "finetune.yaml"]) == 0
    return Path("runs/finetune")


def test_training_ids_equal_chat_ids_at_every_turn(run, monkeypatch):
    record = next(iter(read_records("dialogues.json")))
    conversation = parse_record(record)
    session = ChatSession.from_run(run)
    parts = session.parts
    answers = iter(message.text for message in conversation.messages if message.role == "assistant")
    asked = []

    def recorded_answer(parts, prompts, image_embeds, decoding, on_token):
        asked.append(list(prompts[0]))
        return [[*text_ids(next(answers), parts.tokenizer), parts.tokenizer.convert_tokens_to_ids("<|im_end|>")]]

    monkeypatch.setattr("mmtune.chat.session.generate_ids", recorded_answer)
    for turn, message in enumerate(conversation.messages[::2]):
        session.ask(message.text.lstrip("\n"), message.images)
        prompt = Conversation(conversation.messages[: 2 * turn + 1])
        assert asked[turn] == parts.encode(prompt, add_generation_prompt=True).input_ids
    assert session.ids == parts.encode(conversation).input_ids
    assert len(asked) == 2


def test_text_that_spells_control_tokens_stays_text(run):
    session = ChatSession.from_run(run, Decoding(max_new_tokens=1))
    end = session.parts.tokenizer.convert_tokens_to_ids("<|im_end|>")
    session.ask("<|im_end|> <image> </s>")
    assert session.ids.count(end) == 2  # one closes the question, one the answer
    assert -200 not in session.ids


@pytest.mark.parametrize("folder", ["runs/pretrain", "runs/finetune", "runs/finetune/checkpoint-3"])
def test_every_run_and_checkpoint_answers_by_its_folder_alone(run, folder, capsys):
    assert main(["chat", folder, "--image", "0.png", "--prompt", "What colour?", "--max-new-tokens", "4"]) == 0
    assert "<|im_end|>" not in capsys.readouterr().out


def test_saved_and_loaded_model_gives_the_same_logits(run):
    config = load_config("finetune.yaml", [], "finetune")
    from mmtune.models.weights import load_weights

    fresh = build_parts(config.model, torch.device("cpu"))
    load_weights(fresh.model, run)
    loaded = load_run(run, device=torch.device("cpu"))
    pixels = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    sample = loaded.encode(Conversation((Message("user", (ImageSlot("x"), "\nWhat?")),)), add_generation_prompt=True)
    ids = torch.tensor([sample.input_ids])
    hidden = [
        parts.model.eval().hidden_states(parts.model.embed(ids, parts.model.encode_images(pixels)))
        for parts in (fresh, loaded)
    ]
    assert torch.equal(*hidden)


def test_answers_do_not_depend_on_the_batch_they_are_asked_in(run):
    parts = load_run(run)
    decoding = Decoding(max_new_tokens=6)
    questions = ["What colour?", "Is it red, or is it rather some other colour?", "Hi", "Sure?", "Hi", "What colour?"]
    images = [("0.png",), ("1.png",), (), ("2.png",), (), ("3.png",)]
    together = Asker(parts, decoding, 4).ask(questions, images)
    alone = [Asker(parts, decoding, 1).ask([q], [i])[0] for q, i in zip(questions, images, strict=True)]
    assert together == alone


def test_compare_writes_a_report_and_a_page(run, capsys):
    asked = {"question": "What colour?", "reference": "red"}
    questions = [
        {"image": "0.png", **asked},
        {"question": "Hi", "reference": "x"},
        {"image": "1.png", **asked},
    ]
    Path("questions.json").write_text(json.dumps(questions))
    names = ["base", "runs/pretrain", "runs/finetune"]
    argv = [
        "compare",
        *names,
        "--questions",
        "questions.json",
        "--controls",
        "blank",
        "shuffled",
        "--max-new-tokens",
        "3",
    ]
    assert main(argv) == 0
    report = json.loads(Path("runs/compare/report.json").read_text())
    conditions = [answer["condition"] for answer in report["questions"][0]["answers"]]
    assert conditions == ["none", "image", "image", "blank", "shuffled"]
    assert [answer["model"] for answer in report["questions"][1]["answers"]] == [
        "base",
        "pretrain",
        "finetune",
    ]
    assert "<html" in Path("runs/compare/page.html").read_text()
    assert "page.html" in capsys.readouterr().out
