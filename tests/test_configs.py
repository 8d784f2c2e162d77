"""Every shipped config fits the code."""

import json
from pathlib import Path

import pytest

from mmtune.cli import main
from mmtune.config import load_config, read_yaml, to_yaml
from mmtune.data.template import TEMPLATES
from mmtune.models.projector import PROJECTORS
from mmtune.models.vision import VISION_ENCODERS
from mmtune.recipe import recipe_folder
from mmtune.recipe_file import read_steps
from mmtune.recipe_steps import CHECK, VERBS
from mmtune.schema import VERB_DEFAULTS
from mmtune.shipped import find_config, shipped_configs, shipped_folder

SHIPPED = shipped_configs()
RECIPES = {name: path for name, path in SHIPPED.items() if "steps" in read_yaml(path)}
TRAINING = {name: path for name, path in SHIPPED.items() if name not in RECIPES}


def verb_of(path):
    """The verb of the command that a config opens with."""
    opening = path.read_text(encoding="utf-8").split("\n", 1)[0]
    assert opening.startswith("# ")
    words = opening.split("mmtune ")[1].split()
    assert find_config(words[1]) == path or words[1] == f"configs/{path.relative_to(shipped_folder())}"
    return words[0]


def test_all_files_are_found():
    assert len(SHIPPED) == len(list(shipped_folder().rglob("*.yaml")))
    assert {"demo", "demo/pretrain", "demo/finetune"} <= SHIPPED.keys()
    assert not list(shipped_folder().rglob("*.yml"))


@pytest.mark.parametrize("name", sorted(TRAINING))
def test_a_training_config_loads_with_the_verb_it_opens_with(name, tmp_path):
    verb = verb_of(TRAINING[name])
    assert verb in VERB_DEFAULTS
    config = load_config(TRAINING[name], [], verb)
    assert config.model.llm.chat_template in TEMPLATES
    assert config.model.vision is None or config.model.vision.source in VISION_ENCODERS
    assert config.model.projector is None or config.model.projector.kind in PROJECTORS
    (tmp_path / "resolved.yaml").write_text(to_yaml(config))
    assert load_config(tmp_path / "resolved.yaml", [], verb) == config


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_recipe_and_all_keys_of_its_steps_fit_the_schema(name):
    """And no step reads what a later one makes, or one that it does not need."""
    assert verb_of(RECIPES[name]) == "run"
    folder = recipe_folder(RECIPES[name])
    steps = read_steps(read_yaml(RECIPES[name]), name, folder)
    assert steps
    for step in steps:
        for path in map(Path, VERBS[step.verb].reads(step.values)):
            if path.is_relative_to(folder):
                assert path.relative_to(folder).parts[0] in step.needs or step.verb == CHECK


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_copied_recipe_reads_what_it_makes_itself(name, desk):
    """No step of a copy under another name leads into the folder of the first, and those that need one read it."""
    assert main(["configs", "copy", name, "copied.yaml"]) == 0
    folder = recipe_folder(Path("copied.yaml"))
    for step in read_steps(read_yaml("copied.yaml"), "copied.yaml", folder):
        paths = [Path(path) for path in VERBS[step.verb].reads(step.values)]
        assert all(path.is_relative_to(folder) for path in paths if path.parts[0] == "runs")
        for need in step.needs:
            assert any(path.is_relative_to(folder / need) for path in paths) or step.verb == "compare"


def test_the_settings_of_deepspeed_are_listed_and_copied_too(desk, capsys):
    assert main(["configs", "list", "-p", "deepspeed"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert "deepspeed/zero3_nvme" in names
    for name in names:
        assert main(["configs", "copy", name, "own.json"]) == 0
        assert {"zero_optimization", "train_batch_size"} <= json.loads((desk / "own.json").read_text()).keys()
        (desk / "own.json").unlink()
