"""The scripts as a whole: --help, documents that are true, commands of the READMEs that run."""

import json
import os
import re
import runpy
import shlex
import subprocess
import sys

import openpyxl
import pytest
from PIL import Image
from readme import DOCUMENTS, READMES, ROOT, blocks_of

SCRIPTS = sorted((ROOT / "data_tools").glob("*.py"))
IN_A_TABLE = re.compile(r"^\| `(python data_tools/[^`]+)` \|", re.MULTILINE)


def commands_in(document):
    """The words behind `python` of each data tool's command, in tables and shell blocks."""
    text = document.read_text(encoding="utf-8")
    lines = IN_A_TABLE.findall(text)
    for block in blocks_of(document):
        if block.language in ("sh", "bash"):
            lines += [line for line in block.text.replace("\\\n", " ").splitlines() if "python data_tools/" in line]
    return [shlex.split(line)[1:] for line in lines]


COMMANDS = [words for document in DOCUMENTS for words in commands_in(document)]


def test_both_readmes_have_one_command_for_each_script():
    english, chinese = map(commands_in, READMES)
    assert english == chinese
    assert sorted(words[0] for words in english) == [f"data_tools/{path.name}" for path in SCRIPTS]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_each_script_is_documented_and_its_help_has_an_example_that_fits(path, capsys):
    assert f"## {path.stem}\n" in (ROOT / "docs" / "data_tools.md").read_text(encoding="utf-8")
    main = runpy.run_path(str(path))["main"]
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    example = " ".join(shown.partition("example:")[2].split())
    assert example.startswith(f"python data_tools/{path.name} ")
    assert_options_exist(shlex.split(example)[1:], shown)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_documented_command_has_no_wrong_option(words, capsys):
    with pytest.raises(SystemExit):
        runpy.run_path(str(ROOT / words[0]))["main"](["--help"])
    assert_options_exist(words, capsys.readouterr().out)


def assert_options_exist(words, help_text):
    known = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", help_text.partition("options:")[2].partition("example:")[0]))
    assert {word for word in words if re.match(r"--?[a-z]", word)} <= known


def write_stand_ins(record):
    """What the commands of the READMEs name: small, of the same shape."""
    for folder in ("data/images/coco/train2017", "photos", "mine"):
        os.makedirs(folder)
    for name in ("data/images/coco/train2017/1.jpg", "photos/1.jpg", "mine/cat.png", "mine/dog.png"):
        Image.new("RGB", (40, 30), "orange").save(name)
    files = {
        "data/llava_v1_5_mix665k.json": [record("<image>", "x", image="coco/train2017/1.jpg")],
        "mine/train.json": [record("<image>", "A cat.", image=f"{name}.png") for name in ("cat", "dog")],
    }
    for name, records in files.items():
        with open(name, "w", encoding="utf-8") as file:
            json.dump(records, file)
    book = openpyxl.Workbook()
    book.active.append(("question", "answer"))
    book.active.append(("How?", "So."))
    book.save("qa.xlsx")


def test_the_commands_of_the_readme_run(desk, record, stub, capsys):
    write_stand_ins(record)
    for script, *words in commands_in(READMES[0]):
        argv = [stub.url if word == "http://localhost:8000/v1" else word for word in words]
        code = runpy.run_path(str(ROOT / script))["main"](argv)
        shown = capsys.readouterr()
        assert code == 0, f"{script}\n{shown.err}"
        assert re.search(r"\d+ (records|rows|requests)", shown.out)
    assert len(stub.requests) == 1


def test_a_script_starts_without_torch_and_exits_with_2(desk):
    """As a process of its own, from another folder."""
    code = (
        "import runpy, sys\n"
        "sys.argv = ['llava_layout', '--json', 'none.json', '--image-folder', '.']\n"
        f"try: runpy.run_path({str(ROOT / 'data_tools' / 'llava_layout.py')!r}, run_name='__main__')\n"
        "finally: assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("llava_layout: none.json: no such file")
    assert done.stderr.count("\n") == 1
