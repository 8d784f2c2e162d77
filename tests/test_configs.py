"""Every shipped config fits the code."""

import pytest
from omegaconf import OmegaConf

from mmtune.config import apply_overrides, check_keys, config_from_values, load_config, read_yaml, to_yaml
from mmtune.data.template import TEMPLATES
from mmtune.models.projector import PROJECTORS
from mmtune.models.vision import VISION_ENCODERS
from mmtune.recipe import RecipeConfig
from mmtune.recipe_identity import CompareIdentityConfig, IdentityConfig
from mmtune.recipe_steps import VERBS, CompareConfig, EasyVQAConfig, ScenesConfig
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


def typed(values, schema):
    check_keys(values, schema, "recipe")
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), values))


STEP_SCHEMAS = {
    "compare": CompareConfig,
    "make-scenes": ScenesConfig,
    "make-easy-vqa": EasyVQAConfig,
    "make-identity": IdentityConfig,
    "compare-identity": CompareIdentityConfig,
}


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_recipe_fits_its_schema_and_needs_earlier_steps(name):
    assert verb_of(RECIPES[name]) == "run"
    names = []
    for step in typed(read_yaml(RECIPES[name]), RecipeConfig).steps:
        assert step.name not in names
        assert set(step.needs) <= set(names)
        names.append(step.name)
        values = read_yaml(find_config(step.config)) if isinstance(step.config, str) else step.config
        apply_overrides(values, step.overrides)
        if step.verb in VERB_DEFAULTS:
            config_from_values(values, step.name, step.verb)
        else:
            typed(values, STEP_SCHEMAS[step.verb])
    assert names
    assert STEP_SCHEMAS.keys() | VERB_DEFAULTS.keys() == VERBS.keys()
