"""docs/serve.md: its example runs with the official client, its tables have every field, option and status."""

import re

from data_uris import png
from readme import ROOT, blocks_of
from serve_workspace import endless, serving, worker

from mmtune.cli import build_parser
from mmtune.serve.answering import Answerer
from mmtune.serve.chat_request import FIELDS, IGNORED, NEUTRAL
from mmtune.serve.served_models import ServedModels

__all__ = ["endless", "worker"]

PAGE = ROOT / "docs" / "serve.md"
TEXT = PAGE.read_text(encoding="utf-8")


def test_the_example_runs(endless, worker, desk, capsys):
    (desk / "cat.png").write_bytes(png())
    (example,) = [block.text for block in blocks_of(PAGE) if block.language == "python"]
    mine = Answerer(ServedModels(endless.models.parts, {"mine": endless.models["endless"]}))
    with serving(mine, worker, max_tokens=60) as port:
        assert "http://127.0.0.1:8000/v1" in example
        exec(example.replace("127.0.0.1:8000", f"127.0.0.1:{port}"), {})
    assert capsys.readouterr().out.strip()


def rows_of(title):
    section = TEXT.split(f"## {title}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| (`.*?) \| (.*) \|$", section, re.MULTILINE)


def test_the_page_has_every_field():
    rows = [set(re.findall(r"`(\w+)`", names)) for names, _ in rows_of("What a request may say")]
    assert set.union(*rows[:-2]) == set(FIELDS)
    assert rows[-2:] == [set(IGNORED), set(NEUTRAL)]


def test_the_page_has_every_option_with_its_default():
    parser = build_parser()._subparsers._group_actions[0].choices["serve"]
    options = {option: action for action in parser._actions for option in action.option_strings}
    for option in set(options) - {"-h", "--help", "--traceback", "--log-level"}:
        assert option in TEXT or option in ("--temperature", "--top-p", "--top-k", "--repetition-penalty"), option
    limits = [name.strip("`").split() for name, _ in rows_of("Limits")]
    assert len(limits) == 6
    for option, value in limits:
        assert options[option].default in (None, float(value) if value != "N" else None), option


def test_the_page_has_every_status():
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "mmtune" / "serve").glob("*.py"))
    sent = set(re.findall(r"\bRefused\(\s*(\d{3}),", sources))
    assert sent == set(re.findall(r"\d{3}", " ".join(re.findall(r"^\| ([\d, ]+) \|", TEXT, re.MULTILINE))))
