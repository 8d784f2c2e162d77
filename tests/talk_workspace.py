"""A tiny model that knows one dialogue about two images by heart, and a folder to talk to it in."""

import io
import json
import sys
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from mmtune.build import load_run
from mmtune.chat.generate import Decoding
from mmtune.chat.session import ChatSession
from mmtune.cli import main
from mmtune.testing import write_tiny_clip, write_tiny_llm

TURNS = (
    ("<image>\nWhat colour?", "It is red."),
    ("<image>\nAnd this?", "It is 蓝色的, blue."),
    ("Sure?", "Yes. 是的。"),
)
SYSTEM = "Be brief."


def record():
    sides = [("human", question) for question, _ in TURNS], [("gpt", answer) for _, answer in TURNS]
    talk = [{"from": side, "value": text} for pair in zip(*sides, strict=True) for side, text in pair]
    return {"image": ["red.png", "my blue.png"], "conversations": talk}


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """The folder with models, images, data and the run."""
    folder = tmp_path_factory.mktemp("talk")
    shape = {"hidden_size": 64, "intermediate_size": 128, "max_position_embeddings": 512}
    write_tiny_llm(folder / "llm", **shape)
    write_tiny_clip(folder / "clip")
    Image.new("RGB", (40, 32), (220, 40, 40)).save(folder / "red.png")
    Image.new("RGB", (32, 40), (50, 70, 220)).save(folder / "my blue.png")
    (folder / "data.json").write_text(json.dumps([record()], ensure_ascii=False), encoding="utf-8")
    config = {
        "model": {
            "llm": {"name_or_path": "llm", "chat_template": "chatml", "dtype": "float32", "tune": "full"},
            "vision": {"source": "transformers", "name": "clip"},
            "projector": {"kind": "mlp2x_gelu", "tune": "full"},
        },
        "data": {
            "train": [{"path": "data.json", "system": SYSTEM}],
            "max_length": 512,
            "pack_to_max_length": False,
        },
        "train": {
            "output_dir": "run",
            "gradient_accumulation_steps": 1,
            "max_steps": 120,
            "learning_rate": 5e-3,
            "logging_steps": 60,
            "save_steps": 0,
            "device": "cpu",
        },
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("sft.yaml").write_text(yaml.safe_dump(config))
        assert main(["sft", "sft.yaml"]) == 0
    return folder


@pytest.fixture
def at_home(home, monkeypatch):
    monkeypatch.chdir(home)
    return home


@pytest.fixture(scope="session")
def parts(home):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        return load_run("run", device=torch.device("cpu"))


@pytest.fixture
def session(parts, at_home):
    return ChatSession(parts, Decoding(max_new_tokens=40), SYSTEM)


@pytest.fixture
def chat(monkeypatch, capsys):
    """Return a function that feeds lines to a command and gives its exit code, output and errors."""

    def run(*words, lines=()):
        text = "".join(f"{line}\n" for line in lines)
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        capsys.readouterr()
        code = main(["chat", *map(str, words), "--max-new-tokens", "40"])
        return code, *capsys.readouterr()

    return run
