"""Every mmtune command of the README, in its order, on a demo of a few images."""

import io
import json
from contextlib import nullcontext
from pathlib import Path

import pytest
from ending import ended_once_it_answers
from PIL import Image
from published_layouts import write_pope
from readme import READMES, blocks_of, commands_of

from mmtune.cli import main

SMALL = [
    "data.num_caption_images=16",
    "data.num_dialogue_images=8",
    "data.num_text_repeats=0",
    "data.num_heldout_captions=2",
    "data.num_heldout_questions_per_group=1",
    "data.num_unseen_questions_per_group=1",
    "pretrain.train.max_steps=2",
    "finetune.train.max_steps=2",
    "compare.max_new_tokens=4",
]
SERVED = {"serve": "http://127.0.0.1:8000/health", "web": "http://127.0.0.1:7860/"}
"""Verbs that run until they are ended, and what they serve."""
QUESTIONS = "What is this?\n/reset\nHow many are there?\n/exit\n"


def write_files():
    """Write what the README tells to save, and an image for each one that its records name."""
    for block in blocks_of(READMES[0]):
        if block.file_name is not None:
            path = Path(block.file_name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
            for record in json.loads(block.text) if path.suffix == ".json" else ():
                if "image" in record:
                    Image.new("RGB", (64, 48), "orange").save(path.parent / record["image"])


@pytest.mark.slow
def test_the_commands_of_the_readme_run_in_order(desk, monkeypatch, capsys):
    write_files()
    write_pope(Path("data/pope"))
    # The README chats before it shows `mmtune run`, since `make demo` has made the runs by then.
    commands = sorted(commands_of(READMES[0]), key=lambda words: words[0] != "run")
    assert commands[0] == ["run", "configs/demo.yaml"]
    for words in commands:
        monkeypatch.setattr("sys.stdin", io.StringIO(QUESTIONS))
        with ended_once_it_answers(SERVED[words[0]]) if words[0] in SERVED else nullcontext():
            code = main([*words, *SMALL] if words[0] == "run" else words)
        shown = capsys.readouterr()
        assert code == 0, f"mmtune {' '.join(words)}\n{shown.err}"
    assert (desk / "runs" / "demo" / "compare" / "page.html").is_file()
    assert (desk / "runs" / "compare" / "page.html").is_file()
    assert (desk / "runs" / "eval" / "finetune" / "pope" / "report.json").is_file()
    assert all((desk / "runs" / name / "manifest.json").is_file() for name in ("captions", "dialogues", "mine", "text"))
