"""Answers while training: those of chat, in a file to read."""

import json
from pathlib import Path

import pytest
from PIL import Image
from training_workspace import make

from mmtune.build import load_run
from mmtune.chat.generate import Decoding
from mmtune.chat.session import ChatSession
from mmtune.cli import main
from mmtune.training.callbacks import read_log
from mmtune.training.samples import page

SAMPLE = "sample={questions: [What colour?, {question: 你好 | Hi}], images: [0.png], every_steps: 4, max_new_tokens: 6}"


def answers_at(folder, step):
    return [entry["answer"] for entry in read_log(folder / "samples.jsonl") if entry["step"] == step]


@pytest.mark.parametrize("verb", ["pretrain", "finetune"])
def test_answers_are_those_of_chat(workspace, verb):
    start = make("start", verb="pretrain")
    changes = (SAMPLE, "train.save_steps=4", "train.learning_rate=0.1")
    folder = make("run", *changes, *([f"model.init_from={start}"] if verb == "finetune" else []), verb=verb)
    steps = [entry["step"] for entry in read_log(folder / "samples.jsonl")]
    assert steps == [0, 0, 4, 4, 6, 6]
    for step, run in ((4, folder / "checkpoint-4"), (6, folder)):
        session = ChatSession(load_run(run), Decoding(max_new_tokens=6))
        expected = [session.ask("What colour?", ("0.png",))]
        session.reset()
        assert answers_at(folder, step) == [*expected, session.ask("你好 | Hi")]
    assert answers_at(folder, 0) != answers_at(folder, 6)


def test_a_system_message_stands_before_each_question(workspace):
    asked = "sample={questions: [Hi], system: Be kind., every_steps: 0, max_new_tokens: 6}"
    folder = make("run", asked, verb="pretrain")
    assert [entry["step"] for entry in read_log(folder / "samples.jsonl")] == [0, 6]
    session = ChatSession(load_run(folder), Decoding(max_new_tokens=6), "Be kind.")
    assert answers_at(folder, 6) == [session.ask("Hi")]


def test_the_run_folder_has_a_page(workspace, capsys):
    folder = make("run", SAMPLE, verb="pretrain")
    text = (folder / "samples.md").read_text(encoding="utf-8")
    assert "## 1. What colour?\n\n![0.png](../../0.png)\n\n| step | answer |\n| ---: | --- |\n| 0 | " in text
    assert "## 2. 你好 \\| Hi\n\n| step |" in text
    assert (folder / "../../0.png").resolve().is_file()
    error = capsys.readouterr().err
    assert 'step 4: 0.png "What colour?" -> "' in error
    assert 'step 6: "你好 | Hi" -> "' in error
    files = json.loads((folder / "manifest.json").read_text())["files"]
    assert {"samples.md", "samples.jsonl"} <= files.keys()


def test_the_page_shows_any_text_as_it_is(tmp_path):
    answer = "a | b\n# no *title*\r\n<b>&amp;</b>\0\x1b[31m 红色"
    entry = {"step": 3, "question": "What?\nSo?", "images": ["图 片/1 (a).png"], "answer": answer}
    text = page([("What?\nSo?", ("图 片/1 (a).png",))], [entry], tmp_path / "runs/x")
    assert "## 1. What?<br>So?\n" in text
    row = "| 3 | a \\| b<br>\\# no \\*title\\*<br>&lt;b>&amp;amp;&lt;/b>\\[31m 红色 |"
    assert row in text.splitlines()
    target = text.split("](")[1].split(")\n")[0]
    assert " " not in target
    assert "(" not in target


def test_a_text_model_is_asked_too(workspace):
    Path("texts.json").write_text(json.dumps([{"question": "Hi", "answer": "Hello."}] * 4))
    changes = ("model.vision=null", "model.projector=null", "model.adapter.r=4", "data.train=[{path: texts.json}]")
    sample = "sample={questions: [Hi], max_new_tokens: 4}"
    assert main(["sft", "pretrain.yaml", *changes, sample, "train.max_steps=2", "train.output_dir=runs/text"]) == 0
    assert [entry["step"] for entry in read_log(Path("runs/text/samples.jsonl"))] == [0, 2]


def test_an_image_elsewhere_is_shown_by_its_place(workspace, tmp_path_factory):
    image = tmp_path_factory.mktemp("elsewhere") / "a.png"
    Image.new("RGB", (32, 32)).save(image)
    folder = make(
        "run", f"sample={{questions: [{{question: Hi, image: '{image}'}}], max_new_tokens: 2}}", verb="pretrain"
    )
    target = (folder / "samples.md").read_text().split("](")[1].split(")\n")[0]
    assert (folder / target).resolve() == image
