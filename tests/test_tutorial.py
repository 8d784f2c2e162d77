"""The tutorial in two languages: the same commands and files in both; each runs, in its order, on tiny models.

The tiny models stand where the tutorial's are downloaded to: an InternLM2 and a CLIP in their hub layouts, and a
projector in XTuner's form of file. Verbs that train get few steps; those that serve until Ctrl-C are parsed alone.
"""

import io
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from readme import ROOT, blocks_of, commands_of
from xtuner_files import write_pth

from mmtune.cli import main
from mmtune.testing import write_internlm2, write_tiny_clip

FOLDER = ROOT / "docs" / "tutorial"
PAGES = ["index.md", *sorted(path.name for path in FOLDER.glob("[0-9]*.md"))]
SHORT = ["train.max_steps=2", "train.save_steps=1"]
SERVERS = ("web", "serve")
NEEDS = {"run": ["--dry-run"], "chat": ["--max-new-tokens", "4"], "compare": ["--max-new-tokens", "4", "--limit", "4"]}
SMALL_TWINS = ("smollm2-135m-instruct", "Atlas", "runs/atlas", "runs/assistant_small")
WIDTH = 128
"""Of the tiny language model: a LoRA of rank 64 fits its smallest matrix."""


def files_of(page):
    return [(block.language, block.file_name, block.text) for block in blocks_of(page) if block.language]


@pytest.mark.parametrize("name", PAGES)
def test_both_languages_have_the_same_commands_files_and_tables(name):
    english, chinese = FOLDER / name, FOLDER / "zh" / name
    assert commands_of(english) == commands_of(chinese)
    pairs = zip(files_of(english), files_of(chinese), strict=True)
    for (language, file_name, text), (theirs, their_name, other) in pairs:
        assert (language, file_name) == (theirs, their_name)
        if language == "sh":  # comments are in the language of the page
            text, other = (re.sub(r"^#.*\n", "", each, flags=re.MULTILINE) for each in (text, other))
        assert text == other
    rows = [len(re.findall(r"^\|", page.read_text(encoding="utf-8"), re.MULTILINE)) for page in (english, chinese)]
    titles = [re.findall(r"^(#+) ", page.read_text(encoding="utf-8"), re.MULTILINE) for page in (english, chinese)]
    assert rows[0] == rows[1]
    assert titles[0] == titles[1]


def test_the_chinese_pages_are_chinese():
    for name in PAGES:
        text = re.sub(r"```.*?```|`[^`]*`", "", (FOLDER / "zh" / name).read_text(encoding="utf-8"), flags=re.DOTALL)
        assert len(re.findall(r"[一-鿿]", text)) > 150, name


@pytest.fixture
def lesson(desk):
    """What is downloaded, given or photographed before the first command."""
    llm = write_internlm2("models/internlm2-chat-1_8b", hidden_size=WIDTH, intermediate_size=WIDTH)
    clip = write_tiny_clip("models/clip-vit-large-patch14-336")
    assert llm.is_dir()
    assert clip.is_dir()
    Path("data/course").mkdir(parents=True)
    shapes = {"0.weight": (WIDTH, 16), "0.bias": (WIDTH,), "2.weight": (WIDTH, WIDTH), "2.bias": (WIDTH,)}
    generator = torch.Generator().manual_seed(0)
    weights = {f"projector.model.{key}": torch.randn(size, generator=generator) * 0.02 for key, size in shapes.items()}
    write_pth("data/iter_2181.pth", weights)
    Image.new("RGB", (64, 48), "orange").save("data/course/photo.jpg")
    Image.new("RGB", (48, 64), "navy").save("data/course/other.jpg")
    return desk


def lines_of(text):
    return [line for line in text.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]


def run_line(words):
    """Run a line of a shell block: a verb in this process, a tool for data in another."""
    if words[0] == "mmtune":
        verb, given = words[1], words[1:]
        if verb in SERVERS or any(word in " ".join(given) for word in SMALL_TWINS):
            return  # parsed by test_docs; the demo's models are tried by the READMEs' commands
        if verb in ("pretrain", "finetune", "sft", "identity"):
            given = [*given, *SHORT, "train.device=cpu"]
        elif "--dry-run" not in given:
            given = [*given, *NEEDS.get(verb, [])]
        assert main(given) == 0, shlex.join(words)
    elif words[0] == "python":
        command = [sys.executable, str(ROOT / words[1]), *words[2:]]
        subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True)
    else:
        raise AssertionError(f"what runs this? {shlex.join(words)}")


@pytest.mark.slow
def test_the_tutorial_runs_from_its_first_command_to_its_last(lesson, monkeypatch, capsys):
    ran = []
    for name in PAGES:
        for block in blocks_of(FOLDER / name):
            if block.file_name is not None:
                Path(block.file_name).write_text(block.text, encoding="utf-8")
            elif block.language == "python":
                exec(compile(block.text, name, "exec"), {})
            elif block.language == "sh":
                for line in lines_of(block.text):
                    monkeypatch.setattr("sys.stdin", io.StringIO("/exit\n"))
                    run_line(shlex.split(line, comments=True))
                    ran.append(line)
    assert len(ran) > 25
    for folder in ("runs/xiaozhi/tune", "runs/assistant", "runs/course", "runs/before"):
        assert (lesson / folder / "manifest.json").is_file(), folder
    assert (lesson / "runs" / "compared" / "page.html").is_file()
    report = json.loads((lesson / "runs" / "compared" / "report.json").read_text(encoding="utf-8"))
    flags = {question["id"]: question for question in report["questions"]}
    assert flags["trained"] != flags["new image"]
    assert (lesson / "exports" / "course" / "mmtune_export.json").is_file()
    assert Path("runs/course/samples.md").read_text(encoding="utf-8").count("What do you see") >= 1
