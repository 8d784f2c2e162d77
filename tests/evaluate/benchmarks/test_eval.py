"""`mmtune eval` as a user runs it, on tiny benchmarks and an untrained tiny model."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from launching import LONGEST, TORCHRUN
from published_layouts import WRITERS, write_lines
from readme import ROOT, commands_of
from training_workspace import models, write_config

from mmtune.cli import main
from mmtune.evaluate.asking import Asker
from mmtune.evaluate.benchmarks.table import BENCHMARKS

__all__ = ["models"]
PAGE = ROOT / "docs" / "eval.md"
SHORT = ["--max-new-tokens", "4"]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory, models):
    """A run that can see; copied nowhere, since an evaluation only reads it."""
    folder = tmp_path_factory.mktemp("trained")
    before = Path.cwd()
    os.chdir(folder)
    try:
        record = {"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "Yes."}
        WRITERS["gqa"](folder / "some")
        (folder / "data.json").write_text(json.dumps([{"image": "n0.jpg", "conversations": record}]))
        shutil.copy(folder / "some/images/n0.jpg", folder)
        write_config("pretrain.yaml", models, "data.json", output_dir="run")
        assert main(["pretrain", "pretrain.yaml", "train.max_steps=1", "train.save_steps=0"]) == 0
    finally:
        os.chdir(before)
    return folder / "run"


@pytest.fixture
def ask(desk, run_folder, capsys):
    """Return a function that evaluates into `out` and returns what was shown, or the error of a mistake."""

    def evaluate(name, *more, code=0, data="data"):
        capsys.readouterr()
        argv = ["eval", str(run_folder), "--benchmark", name, "--data", data, "--output", "out", *SHORT, *more]
        assert main(argv) == code
        shown = capsys.readouterr()
        return shown.err if code else shown.out + shown.err

    return evaluate


def lines_of(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


@pytest.mark.parametrize("name", BENCHMARKS)
def test_each_benchmark_is_asked_scored_and_reported(ask, name):
    WRITERS[name](Path("data"))
    shown = ask(name)
    report, answers = json.loads(Path("out/report.json").read_text()), lines_of("out/answers.jsonl")
    assert report["num_answered"] == report["num_questions"] == len(answers)
    assert all(0 <= entry["credit"] <= 1 for entry in answers)
    assert BENCHMARKS[name].title in shown
    assert all(
        f"published: {entry.metric} {entry.value}, {entry.model}" in shown for entry in BENCHMARKS[name].published
    )
    assert report["scores"][0]["metric"] in shown


def test_an_evaluation_that_was_cut_off_goes_on_and_ends_as_a_straight_one(ask, monkeypatch):
    WRITERS["pope"](Path("data"))
    ask("pope", "--batch-size", "1")
    straight, report = Path("out/answers.jsonl").read_bytes(), Path("out/report.json").read_bytes()
    whole = Asker.ask
    left = [2]

    def cut_off(self, questions, images):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return whole(self, questions, images)

    monkeypatch.setattr(Asker, "ask", cut_off)
    shown = ask("pope", "--batch-size", "1", "--overwrite", code=130)
    assert "8 of 18 questions are answered. The same command goes on." in shown
    assert not Path("out/report.json").exists()
    with open("out/answers.jsonl", "a") as file:
        file.write('{"id": "popular/2", "ans')  # the power went
    asked = []
    monkeypatch.setattr(Asker, "ask", lambda *given: (asked.extend(given[1]), whole(*given))[1])
    shown = ask("pope", "--batch-size", "1")
    assert "8 of 18 questions are answered already" in shown
    assert len(asked) == 10
    assert Path("out/answers.jsonl").read_bytes() == straight
    assert Path("out/report.json").read_bytes() == report


def test_a_finished_evaluation_asks_nothing(ask, monkeypatch):
    WRITERS["gqa"](Path("data"))
    ask("gqa")
    monkeypatch.setattr("mmtune.evaluate.benchmarks.run.load_run", None)
    ask("gqa")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            ["--instruction", "Be brief."],
            "instruction (Answer the question using a single word or phrase., now Be brief.)",
        ),
        (["--max-new-tokens", "5"], "max_new_tokens (4, now 5)"),
        (["--limit", "2"], "questions ("),
    ],
)
def test_changed_inputs_are_refused_until_overwrite(ask, change, words):
    WRITERS["gqa"](Path("data"))
    ask("gqa")
    before = Path("out/answers.jsonl").read_bytes()
    shown = ask("gqa", *change, code=2)
    assert f"out: holds answers of another {words}" in shown
    assert shown.endswith("Name another --output, or start anew with --overwrite.\n")
    assert Path("out/answers.jsonl").read_bytes() == before
    ask("gqa", *change, "--overwrite")


def test_a_missing_and_an_unreadable_image_are_named_counted_and_left_out(ask):
    WRITERS["gqa"](Path("data"))
    Path("data/images/n1.jpg").unlink()
    Path("data/images/n2.jpg").write_text("no image")
    shown = " ".join(ask("gqa").split())
    assert "question 201: image data/images/n1.jpg is missing" in shown
    assert "question 202: not asked: " in shown
    assert "2 of 4 were not asked: see the lines above." in shown
    report = json.loads(Path("out/report.json").read_text())
    assert (report["num_questions"], report["num_answered"], len(report["missing"])) == (4, 2, 1)
    assert report["scores"][0]["total"] == 2
    WRITERS["gqa"](Path("data"))
    ask("gqa")
    assert len(lines_of("out/answers.jsonl")) == 4


def test_a_draw_says_so(ask):
    WRITERS["pope"](Path("data"))
    shown = " ".join(ask("pope", "--limit", "5", "--seed", "3").split())
    assert "5 of 18, drawn with seed 3" in shown
    assert len(lines_of("out/answers.jsonl")) == 5


def test_what_is_asked_is_the_prompt_of_the_file(ask, monkeypatch):
    WRITERS["gqa"](Path("data"))
    asked = []
    whole = Asker.ask
    monkeypatch.setattr(Asker, "ask", lambda *given: (asked.extend(given[1]), whole(*given))[1])
    ask("gqa", "--instruction", "")
    assert asked == [entry["prompt"] for entry in lines_of("out/answers.jsonl")] == ["What colour is it?"] * 4


def test_only_images_of_the_next_questions_are_kept(ask, monkeypatch):
    WRITERS["pope"](Path("data"))
    kept = []
    whole = Asker.ask
    monkeypatch.setattr(Asker, "ask", lambda *given: (kept.append(len(given[0].embeds)), whole(*given))[1])
    ask("pope", "--batch-size", "1")
    assert max(kept) <= 4


def test_mistakes_are_one_line(ask):
    WRITERS["gqa"](Path("data"))
    assert "--benchmark: unknown name 'pop'. Did you mean 'pope'? Known: gqa, mmbench," in ask("pop", code=2)
    assert "data: holds no folder of a task of MME (existence, count, position and 11 more;" in ask("mme", code=2)
    Path("file").write_text("")
    assert "--output: cannot write to " in ask("gqa", "--output", "file/x", code=2)
    ask("gqa")
    with open("out/answers.jsonl", "a") as file:
        file.write("what\n")
    assert "out/answers.jsonl:5: is no answer. Delete the line, or start anew with --overwrite." in ask("gqa", code=2)


def test_perplexity_is_that_of_validation(ask, run_folder, models):
    """The same texts as held-out data of a run: the loss of a token is equal, however texts are cut and batched."""
    WRITERS["perplexity"](Path("data"))
    texts = [Path("data/book.txt").read_text(), *(entry["text"] for entry in lines_of("data/notes.jsonl"))]
    write_lines(Path("texts.jsonl"), [{"text": text} for text in texts])
    write_config("sft.yaml", models, "texts.jsonl", output_dir="text")
    tuned = ["model.vision=null", "model.projector=null", "model.llm.tune=full", "train.learning_rate=1e-12"]
    tuned += ["data.validation=[{path: texts.jsonl}]", "data.max_length=64", "train.max_steps=1", "train.save_steps=0"]
    assert main(["sft", "sft.yaml", *tuned]) == 0
    logged = [entry for entry in lines_of("text/log.jsonl") if "eval_perplexity" in entry][-1]
    assert main(["eval", "text", "--benchmark", "perplexity", "--data", "data", "--output", "ppl"]) == 0
    (measured,) = [
        score
        for score in json.loads(Path("ppl/report.json").read_text())["scores"]
        if (score["metric"], score["group"]) == ("perplexity", "all")
    ]
    assert measured["value"] == pytest.approx(logged["eval_perplexity"], rel=1e-5)
    WRITERS["gqa"](Path("seen"))
    assert main(["eval", "text", "--benchmark", "gqa", "--data", "seen"]) == 2


@pytest.mark.slow
def test_two_processes_answer_what_one_does(ask, run_folder):
    WRITERS["pope"](Path("data"))
    ask("pope")
    alone, report = Path("out/answers.jsonl").read_bytes(), json.loads(Path("out/report.json").read_text())
    argv = [
        "-m",
        "mmtune",
        "eval",
        str(run_folder),
        "--benchmark",
        "pope",
        "--data",
        "data",
        "--output",
        "both",
        *SHORT,
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*TORCHRUN, *argv], env=environment, capture_output=True, text=True, timeout=LONGEST)
    assert done.returncode == 0, done.stderr[-3000:]
    assert Path("both/answers.jsonl").read_bytes() == alone
    assert json.loads(Path("both/report.json").read_text())["scores"] == report["scores"]
    assert [path.name for path in Path("both").glob("answers*")] == ["answers.jsonl"]
    assert done.stdout.count("LLaVA-1.5-7B") == 1


def test_the_commands_of_the_page_run(desk, run_folder, capsys):
    for name, write in WRITERS.items():
        write(Path("data") / ("mmbench" if name.startswith("mmbench") else name))
    shutil.copytree(run_folder, "runs/larger")
    commands = [words for words in commands_of(PAGE) if words[0] == "eval"]
    assert {words[words.index("--benchmark") + 1] for words in commands} == set(BENCHMARKS)
    for words in commands:
        assert main([*words, *SHORT]) == 0, capsys.readouterr().err
    assert Path("runs/eval/larger/pope/report.json").is_file()
