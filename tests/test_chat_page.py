"""Every command of docs/chat.md runs, and the page has every command and param of the dialogue."""

import io
import json
import re
import shutil
from pathlib import Path

import pytest
from readme import ROOT, blocks_of, commands_of
from talk_workspace import home

from mmtune.chat.commands import COMMANDS, WORDS_OF_XTUNER
from mmtune.chat.params import PARAMS
from mmtune.cli import main

__all__ = ["home"]

PAGE = ROOT / "docs" / "chat.md"
TEXT = PAGE.read_text(encoding="utf-8")


@pytest.fixture
def place(home, tmp_path, monkeypatch):
    """A folder with what the page names."""
    for name in ("llm", "clip"):
        (tmp_path / name).symlink_to(home / name)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mine").symlink_to(home / "run")
    shutil.copy(home / "red.png", tmp_path / "cat.png")
    monkeypatch.chdir(tmp_path)
    for block in blocks_of(PAGE):
        if block.file_name:
            Path(block.file_name).write_text(block.text, encoding="utf-8")
    (lines,) = [block.text for block in blocks_of(PAGE) if block.language == "text"]
    Path("lines.txt").write_text(lines, encoding="utf-8")
    return tmp_path


def test_the_commands_run(place, monkeypatch, capsys):
    piped = [line.split("| mmtune ")[1].split() for line in TEXT.splitlines() if line.startswith("cat lines.txt | ")]
    assert piped == [["chat", "runs/mine"]]
    for words in [*commands_of(PAGE), *piped]:
        monkeypatch.setattr("sys.stdin", io.StringIO(Path("lines.txt").read_text(encoding="utf-8")))
        capsys.readouterr()
        code = main([*words, "--max-new-tokens", "30"])
        out, err = capsys.readouterr()
        assert code == 0, err
        answers = out.splitlines()
        if "--json" in words:
            (found,) = map(json.loads, answers)
            assert (found["id"], found["images"], found["correct"]) == ("cat-1", ["cat.png"], False)
        else:
            assert len(answers) == (1 if "--prompt" in words else 2)


def test_the_dialogue_on_the_page_is_trained_and_loaded(place, monkeypatch, capsys):
    (record,) = [block.text for block in blocks_of(PAGE) if '"messages"' in block.text]
    Path("talk.json").write_text(record, encoding="utf-8")
    monkeypatch.setattr("sys.stdin", io.StringIO("/load talk.json\n/save again.json\n"))
    assert main(["chat", "runs/mine", "--system", ""]) == 0
    assert json.loads(Path("again.json").read_text()) == json.loads(record)
    config = str(Path("runs/mine").resolve().parent / "sft.yaml")
    assert main(["sft", config, "data.train=[{path: talk.json}]", "train.output_dir=new", "train.max_steps=1"]) == 0


def test_the_page_has_every_command_and_param():
    rows = re.findall(r"^\| `(/[a-z]+)[^|]*\|", TEXT, re.MULTILINE)
    assert rows == list(COMMANDS)
    for word, command in WORDS_OF_XTUNER.items():
        assert f"| `{command}` (or `{word}`) |" in TEXT
    for name in PARAMS:
        assert re.search(rf"^\| `--{name.replace('_', '-')} \S+` \| `{name}` \|", TEXT, re.MULTILINE), name


def test_help_is_in_the_order_of_the_table(place, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("/help\n"))
    assert main(["chat", "runs/mine"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[0] for line in lines if line.startswith("/")] == list(COMMANDS)
    assert max(map(len, lines)) <= 80
