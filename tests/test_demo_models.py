"""The verbs that ask, started as a user starts them, on models of the quick demo that were trained for two steps."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from published_layouts import WRITERS
from readme import ROOT
from test_readme_commands import SMALL

pytestmark = pytest.mark.slow
CODES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[()=>].?|\r")
RUN, QUESTIONS = "runs/demo/finetune", "runs/demo/data/heldout_questions.json"
SHORT = ("--max-new-tokens", "4")
HOSTILE = "<script>alert(1)</script> <|im_end|> | **b** \x1b[31m"
LONG = "word " * 9000


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder in which the demo has run, and a command that runs mmtune there."""
    folder = tmp_path_factory.mktemp("demo")
    mmtune(folder, "run", "demo", *SMALL)
    return folder


def environment():
    return os.environ | {"PYTHONPATH": str(ROOT), "PROMPT_TOOLKIT_NO_CPR": "1", "TERM": "xterm"}


def mmtune(folder, *words, lines=(), code=0):
    """Run a command; return its output and its errors."""
    given = "".join(f"{line}\n" for line in lines)
    argv = [sys.executable, "-m", "mmtune", *words]
    done = subprocess.run(argv, cwd=folder, env=environment(), input=given, capture_output=True, text=True)
    assert done.returncode == code, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


def questions_of(place):
    return json.loads((place / QUESTIONS).read_text())


def image_of(place):
    return next((place / "runs/demo/data/images").glob("heldout_*.png"))


def test_a_dialogue_in_a_terminal(place):
    pexpect = pytest.importorskip("pexpect", reason="pexpect needs a POSIX terminal")
    argv = ["-m", "mmtune", "chat", RUN, *SHORT]
    child = pexpect.spawn(sys.executable, argv, cwd=place, env=environment(), encoding="utf-8", timeout=240, echo=False)

    def type_line(line, *seen):
        child.send(f"{line}\r")
        for text in seen:
            child.expect_exact(text)
        child.expect_exact("you: ")

    try:
        child.expect_exact("you: ")
        type_line(f"/image {image_of(place)}", "with the next question: ")
        type_line("What is this? <|im_end|>", "model: ")
        type_line(f"'{image_of(place)}' How many are there?", "model: ")
        type_line("/before", "no adapter: the base model answers; the dialogue starts anew")
        type_line("/retry", "model: ")
        type_line("/after", "finetune answers; the dialogue starts anew")
        type_line("/retry", "model: ")
        type_line("/retry", "model: ", "temperature is 0, so the same model says the same.")
        type_line("/save talk.json", "saved to ")
        type_line("/undo", "taken back: How many are there?")
        type_line(f"/image {place}/none.png", "no such image")
        type_line("RESET", "the dialogue starts anew")
        child.send("EXIT\r")
        child.expect(pexpect.EOF)
        child.wait()
        assert child.exitstatus == 0
    finally:
        child.close(force=True)
    (record,) = json.loads((place / "talk.json").read_text())
    assert [turn["role"] for turn in record["messages"]] == ["user", "assistant"]
    assert record["messages"][1]["token_ids"]


def test_lines_of_a_pipe_and_questions_of_a_file(place):
    out, err = mmtune(place, "chat", RUN, *SHORT, lines=[f"/image {image_of(place)}", "What is this?", "/undo", "Hi"])
    assert len(out.splitlines()) == 2
    assert "taken back: What is this?" in err
    asked = questions_of(place)
    out, _ = mmtune(place, "chat", RUN, "--questions", QUESTIONS, "--json", *SHORT)
    found = [json.loads(line) for line in out.splitlines()]
    assert [entry["id"] for entry in found] == [entry["id"] for entry in asked]
    assert all(entry.keys() == {"id", "question", "images", "answer", "correct"} for entry in found)


def write_hostile(place):
    good = {"id": "good", "question": HOSTILE, "image": str(image_of(place)), "reference": HOSTILE}
    lines = [json.dumps(good), '{"question": "cut', json.dumps({"question": "What?", "image": "none.png"})]
    lines += [json.dumps({"id": "long", "question": LONG}), json.dumps({"id": "last", "question": "Hi"})]
    (place / "hostile.jsonl").write_text("\n".join(lines))


def test_what_cannot_be_asked_is_a_line_each_and_the_rest_is_answered(place):
    write_hostile(place)
    out, err = mmtune(place, "chat", RUN, "--questions", "hostile.jsonl", "--json", *SHORT, code=2)
    found = [json.loads(line) for line in out.splitlines()]
    assert ["answer" in entry for entry in found] == [True, False, False, False, True]
    assert len([line for line in err.splitlines() if line.startswith("mmtune: ")]) == 3
    words = ("compare", "base", RUN, "--questions", "hostile.jsonl", "--output", "hostile", *SHORT)
    out, err = mmtune(place, *words, code=1)
    report = json.loads((place / "hostile/report.json").read_text())
    assert [len(entry["answers"]) for entry in report["questions"]] == [3, 2, 2]
    starts = ("hostile.jsonl:2: ", "hostile.jsonl:3: image none.png", "hostile.jsonl:4: not asked of ")
    assert all(any(line.startswith(start) for line in report["left_out"]) for start in starts)
    page = (place / "hostile/page.html").read_text()
    assert "<script>alert" not in page + (place / "hostile/report.md").read_text()
    assert "\x1b" not in page + out + err


def test_three_models_are_compared(place):
    models = ("base", "runs/demo/pretrain", RUN)
    out, _ = mmtune(place, "compare", *models, "--questions", QUESTIONS, "--limit", "4", *SHORT)
    report = json.loads((place / "runs/compare/report.json").read_text())
    assert [model["name"] for model in report["models"]] == ["base", "pretrain", "finetune"]
    assert {row["model"] for row in report["measures"]} == {"base", "pretrain", "finetune"}
    assert "page.html" in out


@pytest.mark.parametrize("name", WRITERS)
def test_a_benchmark_is_scored(place, name):
    WRITERS[name](place / "benchmarks" / name)
    out, _ = mmtune(place, "eval", RUN, "--benchmark", name, "--data", f"benchmarks/{name}", *SHORT)
    report = json.loads((place / "runs/eval/finetune" / name / "report.json").read_text())
    assert report["num_answered"] == report["num_questions"] > 0
    assert report["title"] in out


def test_the_recipe_repeats_nothing_and_goes_on_from_a_step(place):
    def manifests():
        return {path: path.read_bytes() for path in Path(place, "runs/demo").glob("*/manifest.json")}

    before = manifests()
    out, _ = mmtune(place, "run", "demo", *SMALL, "--dry-run")
    steps = [line for line in out.splitlines() if line[0].isdigit()]
    assert len(steps) == 4
    assert all(line.endswith(": not repeated") for line in steps)
    mmtune(place, "run", "demo", *SMALL, "--from", "compare")
    assert manifests() == before
    changed = [*SMALL, "finetune.train.seed=7"]
    _, err = mmtune(place, "run", "demo", *changed, code=2)
    assert "train.seed: None -> 7" in err
    mmtune(place, "run", "demo", *changed, "--from", "finetune", "--overwrite")
    assert [path.parent.name for path, text in sorted(manifests().items()) if text != before[path]] == [
        "compare",
        "finetune",
    ]
