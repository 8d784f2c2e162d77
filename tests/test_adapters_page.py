"""Every command of docs/adapters.md, in its order, and its Python, on tiny models."""

import io
from pathlib import Path

import pytest
import torch
from readme import ROOT, blocks_of, commands_of
from safetensors.torch import load_file
from training_workspace import models, workspace

from mmtune.cli import main
from mmtune.models.stacking import STACKABLE

__all__ = ["models", "workspace"]

PAGE = ROOT / "docs" / "adapters.md"
TYPED = "/adapter\n/adapter cars\nWhat is this?\n/adapter none\nWhat is this?\n/exit\n"


@pytest.fixture
def told(workspace, monkeypatch, capsys):
    """What each command of the page prints."""
    Path("finetune.yaml").rename("my_finetune.yaml")
    assert main(["pretrain", "pretrain.yaml", "train.output_dir=runs/captions", "train.max_steps=2"]) == 0
    found = []
    for words in commands_of(PAGE):
        monkeypatch.setattr("sys.stdin", io.StringIO(TYPED))
        options = {"finetune": ["train.max_steps=2", "train.save_steps=0"], "chat": ["--max-new-tokens", "4"]}
        capsys.readouterr()
        code = main([*words, *options.get(words[0], [])])
        shown = capsys.readouterr()
        assert code == 0, f"mmtune {' '.join(words)}\n{shown.err}"
        found.append((words, shown.err))
    return found


def test_the_commands_run_in_order(told):
    assert {words[0] for words, _ in told} == {"finetune", "chat", "merge"}
    for name in ("birds", "cars", "owls", "both", "sparse", "owls_alone"):
        assert (Path("runs") / name / "manifest.json").is_file(), name
    (dialogue,) = [text for words, text in told if "--adapters" in words]
    assert "birds (answers), cars, captions, none." in " ".join(dialogue.split())
    frozen = load_file("runs/owls/stacked/0/adapter_model.safetensors")
    before = load_file("runs/birds/adapter/adapter_model.safetensors")
    assert all(torch.equal(frozen[name], value) for name, value in before.items())
    again = ["train.output_dir=runs/again", "train.max_steps=2", "train.save_steps=0"]
    (Path("runs") / "birds").rename("runs/gone")  # reproduced by the copy, as the page says
    again += ["model.stack_on=[runs/owls/stacked/0]", "model.init_from=runs/captions"]
    assert main(["finetune", "runs/owls/config.yaml", *again]) == 0
    (code,) = [block.text for block in blocks_of(PAGE) if block.language == "python"]
    Path("runs/gone").rename("runs/birds")
    scope = {}
    exec(code, scope)
    assert scope["switch"].active == "cars"


def test_the_page_names_the_kinds_that_stack():
    *first, last = STACKABLE
    assert f"{', '.join(first)} or {last}" in PAGE.read_text(encoding="utf-8")
