"""`mmtune identity` on a tiny model: its steps, what it leaves, its mistakes, the system message that travels."""

import json
from pathlib import Path

import pytest
import yaml

from mmtune.build import load_run
from mmtune.chat.session import ChatSession
from mmtune.cli import main
from mmtune.conversation import Conversation, Message
from mmtune.run_folder import read_config
from mmtune.schema import trained_system


@pytest.fixture
def model(desk, tiny):
    values = {
        "model": {"llm": {"name_or_path": str(tiny.llm), "chat_template": "chatml", "dtype": "float32"}},
        "data": {"train": [{"path": "replaced.jsonl"}], "max_length": 256},
        "train": {"output_dir": "replaced", "max_steps": 2, "save_steps": 0, "device": "cpu"},
    }
    values["model"]["adapter"] = {"kind": "lora", "r": 2, "target_modules": "all-linear"}
    Path("tiny.yaml").write_text(yaml.safe_dump(values))
    return "tiny.yaml"


def identity(*more, name="Atlas", author="Ada Lovelace"):
    return main(["identity", "--name", name, "--author", author, "--max-new-tokens", "4", *more])


def test_it_makes_tunes_compares_and_repeats_nothing(model, capsys):
    system = "You are {name}, <|im_end|> a helper."
    assert identity("--model", model, "--system", system, "train.learning_rate=1e-3") == 0
    shown = capsys.readouterr().out
    assert "says who it is, in unseen words" in shown
    assert shown.rstrip().endswith("Ask it: mmtune chat runs/identity/tune")
    report = json.loads(Path("runs/identity/compare/report.json").read_text())
    assert any(report["identity"]["verdict"].startswith(word) for word in ("good", "under-trained", "over", "spoiled"))
    assert report["identity"]["verdict"] in shown
    assert [row["model"] for row in report["identity"]["scores"]] == ["base", "tune"]
    assert report["identity"]["verdict"] in Path("runs/identity/compare/page.html").read_text()
    assert read_config(Path("runs/identity/tune")).train.learning_rate == 1e-3

    def stamps():  # the card is written each time
        return {path: path.stat().st_mtime_ns for path in Path("runs/identity").glob("*/**/*.json*")}

    before = stamps()
    assert identity("--model", model, "--system", system, "train.learning_rate=1e-3") == 0
    assert stamps() == before

    assert identity("--model", model, "--system", system, "train.learning_rate=1e-3", name="Zeus") == 2
    assert "--overwrite makes it anew" in capsys.readouterr().err

    _the_system_message_travels(system, capsys)


def _the_system_message_travels(system, capsys):
    run = Path("runs/identity/tune")
    assert trained_system(read_config(run)) == system
    parts = load_run(run)
    asked = Conversation((Message("system", (system,)), Message("user", ("Hi",))))  # as chat asks
    with_system = parts.encode(asked, add_generation_prompt=True).input_ids
    answers = {}
    for given in (None, system, ""):
        capsys.readouterr()
        words = ["chat", str(run), "--prompt", "Hi", "--max-new-tokens", "4"]
        assert main(words if given is None else [*words, "--system", given]) == 0
        answers[given] = capsys.readouterr().out
    assert answers[None] == answers[system]
    session = ChatSession(parts, system=trained_system(read_config(run)))
    session.ask("Hi")
    assert session.ids[: len(with_system)] == with_system


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--lang", "en,de"], "language: unknown name 'de'. Known: en, zh."),
        (["--model", "demo"], "--model: demo is a recipe of several steps. Name a config of `mmtune sft`."),
        (["--model", "absent.yaml"], "absent.yaml: no such file"),
        (["--model", "no_such_model"], "'no_such_model' is no folder"),
        (["train.learning_rat=1"], "learning_rat"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(desk, capsys, words, message):
    assert identity(*words) == 2
    error = capsys.readouterr().err
    assert message in error.splitlines()[-1]


def test_an_empty_name_is_a_mistake(desk, capsys):
    assert identity(name=" ") == 2
    assert "mmtune: name: is empty." in capsys.readouterr().err


def test_a_source_gives_a_system_message_to_dialogues_that_have_none(config_file, data_file, desk, capsys):
    own = {"messages": [{"role": role, "content": f"the {role}"} for role in ("system", "user", "assistant")]}
    data_file(own, {"messages": own["messages"][1:]}, name="data.jsonl")
    config = config_file("data.train.0.path=data.jsonl", "data.train.0.system=Be kind.")
    assert main(["inspect", config, "-n", "2"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("the system") == shown.count("Be kind.") == 1
