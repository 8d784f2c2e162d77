"""The Python of docs/howto, on tiny models, and its tables of names."""

import re

from PIL import Image
from readme import ROOT, blocks_of, commands_of
from training_workspace import COLOURS, models, workspace

from mmtune import ChatSession, Decoding
from mmtune.cli import main
from mmtune.export.formats import FORMATS
from mmtune.models.projector import PROJECTORS
from mmtune.models.vision import VISION_ENCODERS

__all__ = ["models", "workspace"]

FOLDER = ROOT / "docs" / "howto"
SHORT = ["train.max_steps=2", "train.save_steps=0"]


def python_of(page):
    (code,) = [block.text for block in blocks_of(FOLDER / page) if block.language == "python"]
    return code


def test_an_encoder_of_ones_own_trains_and_answers(workspace, monkeypatch, capsys):
    monkeypatch.setitem(VISION_ENCODERS, "colours", None)  # taken out again behind the test
    scope = {}
    code = python_of("own_encoder.md").replace(
        '"train.output_dir=runs/colours"', f'"train.output_dir=runs/colours", *{SHORT}'
    )
    exec(code, scope)
    session = ChatSession.from_run(scope["run"], Decoding(max_new_tokens=4))
    assert isinstance(session.parts.model.vision, scope["Colours"])
    session.ask("What colour?", ["0.png"])
    red, blue = (session.embed([Image.new("RGB", (40, 30), COLOURS[name])]).flatten(1) for name in ("red", "blue"))
    assert session.embed(["0.png"]).shape[1] == 16
    assert not bool((red == blue).all())


def test_an_hf_llava_export_answers_as_the_page_asks(workspace, capsys):
    assert main(["pretrain", "pretrain.yaml", *SHORT, "train.output_dir=runs/mine"]) == 0
    export = next(words for words in commands_of(FOLDER / "other_programs.md") if "hf-llava" in words)
    assert main([*export, "--dtype", "float32"]) == 0
    Image.new("RGB", (64, 48), COLOURS["red"]).save("cat.png")
    capsys.readouterr()
    exec(python_of("other_programs.md"), {})
    theirs = capsys.readouterr().out
    assert main(["chat", "runs/mine", "--image", "cat.png", "--prompt", "What is this?", "--max-new-tokens", "32"]) == 0
    assert theirs.strip() == capsys.readouterr().out.strip()


def test_the_pages_name_what_there_is():
    encoder = (FOLDER / "own_encoder.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)` \| .* \| .* \|$", encoder, re.MULTILINE)) == set(VISION_ENCODERS)
    programs = (FOLDER / "other_programs.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\| `([\w-]+)` \| (?:yes|no) \|", programs)) == set(FORMATS) - {"xtuner"}
    assert "mlp2x_gelu" in PROJECTORS
