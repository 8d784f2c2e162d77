import json
import subprocess
import sys

import pytest
import yaml

from mmtune import __version__
from mmtune.cli import main
from mmtune.shipped import shipped_configs, shipped_settings

VERBS = [
    *(
        "pretrain",
        "finetune",
        "sft",
        "plan",
        "run",
        "identity",
        "chat",
        "serve",
        "web",
        "compare",
        "eval",
        "merge",
        "export",
        "data",
        "inspect",
        "bench",
        "configs",
        "doctor",
    ),
    "convert",
]
HEAVY = {"torch", "transformers", "peft", "numpy", "PIL", "omegaconf"}


def output_of(capsys, *argv):
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 0
    return capsys.readouterr().out


def test_help_names_every_verb_and_an_example(capsys):
    text = output_of(capsys, "--help")
    assert "mmtune run configs/demo.yaml" in text
    assert all(f"    {verb} " in text for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_with_an_example(capsys, verb):
    text = output_of(capsys, verb, "--help")
    example = text.split("example:", 1)[1]
    assert f"mmtune {verb} " in example
    assert "--traceback" in text


@pytest.mark.parametrize("action", ["list", "show", "copy"])
def test_every_action_of_configs_explains_itself(capsys, action):
    assert f"mmtune configs {action} " in output_of(capsys, "configs", action, "--help").split("example:", 1)[1]


def test_version(capsys):
    assert output_of(capsys, "--version") == f"mmtune {__version__}\n"


@pytest.mark.parametrize(
    "argv", [["--help"], ["--version"], ["pretrain", "--help"], ["convert", "xtuner-config", "--help"]]
)
def test_help_loads_no_heavy_library(argv):
    code = f"""
import sys
from mmtune.cli import main
try:
    main({argv!r})
except SystemExit as leaving:
    assert leaving.code == 0
print("loaded:", sorted({HEAVY!r} & sys.modules.keys()), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "loaded: []\n"


def test_python_m_mmtune_is_the_same_command():
    done = subprocess.run([sys.executable, "-m", "mmtune", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"mmtune {__version__}\n"


@pytest.mark.parametrize("argv", ["a b --json c", "--json a b c", "a b c --json", "a --template chatml b --json c"])
def test_overrides_stand_before_and_after_options(capsys, config_file, data_file, record, argv):
    data_file(*[record("<image>", "A cat.", image="1.png")] * 2)
    overrides = {"a": "data.max_length=40", "b": "model.llm.chat_template=chatml", "c": "model.vision.feature_layer=-1"}
    config = config_file("model.llm.chat_template=plain", "model.vision.feature_layer=9")
    assert main(["inspect", config, *[overrides.get(word, word) for word in argv.split()]]) == 0
    samples = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [len(sample["input_ids"]) for sample in samples] == [40, 40]


def test_overrides_reach_the_run(config_file, data_file, record, desk):
    data_file(record("<image>", "A cat.", image="1.png"))
    assert main(["pretrain", config_file(), "train.seed=7", "--overwrite", "model.projector.kind=linear"]) == 0
    written = yaml.safe_load((desk / "run" / "config.yaml").read_text())
    assert written["train"]["seed"] == 7
    assert written["model"]["projector"]["kind"] == "linear"


def test_configs_list_names_each_config_with_its_summary(capsys):
    assert main(["configs", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [*shipped_configs(), *shipped_settings()]
    assert all(len(line.split()) > 3 for line in lines)


def test_configs_list_can_be_narrowed(capsys):
    main(["configs", "list", "-p", "PreTrain"])
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert "demo/pretrain" in names
    assert "demo/finetune" not in names


@pytest.mark.parametrize("name", ["demo/finetune", "demo/finetune.yaml", "configs/demo/finetune.yaml"])
def test_configs_show_and_copy_give_the_file(capsys, desk, name):
    text = shipped_configs()["demo/finetune"].read_text()
    assert main(["configs", "show", name]) == 0
    assert capsys.readouterr().out == text
    assert main(["configs", "copy", name, "mine.yaml"]) == 0
    assert (desk / "mine.yaml").read_text() == text


def test_configs_copy_into_a_folder(capsys, desk):
    (desk / "mine").mkdir()
    assert main(["configs", "copy", "demo/finetune", "mine"]) == 0
    assert capsys.readouterr().out == "finetune.yaml copied to mine/finetune.yaml\n"
    assert (desk / "mine/finetune.yaml").read_text() == shipped_configs()["demo/finetune"].read_text()
