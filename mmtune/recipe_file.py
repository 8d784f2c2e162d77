"""A recipe as it is written, and its steps with the keys that they will run with. Nothing runs here."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from mmtune.config import apply_overrides, config_from_values, read_yaml, typed_values
from mmtune.errors import ConfigError
from mmtune.lookup import lookup
from mmtune.recipe_steps import CHECK, VERBS
from mmtune.schema import VERB_DEFAULTS
from mmtune.shipped import find_config

OWN_FOLDER = "runs/RECIPE"
"""In a path of a recipe: its own folder, whatever its file is called."""


@dataclass
class StepConfig:
    """One step of a recipe."""

    name: str = MISSING  # its output is runs/<recipe>/<name>
    verb: str = MISSING  # a key of mmtune.recipe_steps.VERBS
    config: Any = None  # a config file, a shipped name, or the keys themselves
    overrides: list[str] = field(default_factory=list)  # section.name=value
    needs: list[str] = field(default_factory=list)  # names of earlier steps


@dataclass
class RecipeConfig:
    """A recipe: steps in order."""

    steps: list[StepConfig] = field(default_factory=list)


@dataclass(frozen=True)
class Step:
    """A step that is ready to run.

    Attributes:
        name: of it, once in a recipe.
        verb: a key of `VERBS`.
        values: its keys, with all overrides.
        needs: names of earlier steps.
        folder: what it writes.
    """

    name: str
    verb: str
    values: dict[str, Any]
    needs: tuple[str, ...]
    folder: Path

    @property
    def trains(self) -> bool:
        """Whether it is a training, whose folder is a run."""
        return self.verb in VERB_DEFAULTS


def read_steps(values: dict[str, Any], place: Path | str, folder: Path, overrides: Sequence[str] = ()) -> list[Step]:
    """Return the steps of a recipe with their keys.

    Args:
        values: the keys of `RecipeConfig`.
        place: what errors name as the recipe.
        folder: where each step has a folder of its own.
        overrides: `STEP.section.name=value` texts.

    Raises:
        ConfigError: the recipe or a key of a step is wrong, so that a mistake in the last is said before the first.
    """
    recipe = typed_values(values, RecipeConfig, str(place))
    _check_steps(recipe, place)
    configs = {step.name: _step_values(step, folder) for step in recipe.steps}
    _apply_step_overrides(configs, overrides)
    configs = {name: _with_own_folder(values, folder) for name, values in configs.items()}
    for step in recipe.steps:
        if step.verb == CHECK:
            configs[step.name] = _configs_to_check(step, configs[step.name], recipe, configs)
        elif step.verb in VERB_DEFAULTS:
            config_from_values(configs[step.name], f"step {step.name}", step.verb)
        else:
            typed_values(configs[step.name], VERBS[step.verb].keys, f"step {step.name}")
    steps = [
        Step(step.name, step.verb, configs[step.name], (*step.needs,), folder / step.name) for step in recipe.steps
    ]
    for each in steps:
        _require_own_needs(each, folder)
    return steps


def _check_steps(recipe: RecipeConfig, path: Path | str) -> None:
    """Hold what names of steps must keep: there are some, each once, and a step needs only earlier ones.

    Raises:
        ConfigError: they do not.
    """
    if not recipe.steps:
        raise ConfigError(
            path, "'steps' names no step. Give it as a list: [{name: pretrain, verb: pretrain, config: FILE}]."
        )
    earlier: list[str] = []
    for step in recipe.steps:
        if not step.name.strip() or step.name in earlier or Path(step.name).name != step.name:
            message = f"'{step.name}' is no name for a step: each is the name of a folder and stands once."
            raise ConfigError(path, f"{message} Mend it.")
        lookup(VERBS, step.verb, f"step {step.name}: verb")
        for need in step.needs:
            if need not in earlier:
                known = ", ".join(earlier) or "none"
                raise ConfigError(
                    path, f"step '{step.name}' needs '{need}', which is no earlier step. Earlier: {known}."
                )
        if step.config is not None and not isinstance(step.config, str | dict):
            raise ConfigError(path, f"step '{step.name}': 'config' is a file, a shipped name or a section of keys.")
        earlier.append(step.name)


def _step_values(step: StepConfig, folder: Path) -> dict[str, Any]:
    values: Any = read_yaml(find_config(step.config)) if isinstance(step.config, str) else step.config or {}
    if step.verb in VERB_DEFAULTS:
        values.setdefault("train", {})["output_dir"] = str(folder / step.name)
    apply_overrides(values, list(step.overrides))
    return values


def _with_own_folder(value: Any, folder: Path) -> Any:
    """Return keys and values whose paths in `runs/RECIPE` lead into the folder of the recipe."""
    if isinstance(value, dict):
        return {key: _with_own_folder(entry, folder) for key, entry in value.items()}
    if isinstance(value, list):
        return [_with_own_folder(entry, folder) for entry in value]
    is_own = isinstance(value, str) and (value == OWN_FOLDER or value.startswith(f"{OWN_FOLDER}/"))
    return f"{folder.as_posix()}{value.removeprefix(OWN_FOLDER)}" if is_own else value


def _require_own_needs(step: Step, folder: Path) -> None:
    """Hold that a step does not read from another recipe what it needs of this one, as a copied recipe would.

    Raises:
        ConfigError: it does, and reads nothing of its own recipe's step.
    """
    root = folder.resolve()
    read = [(path, Path(path).resolve()) for path in VERBS[step.verb].reads(step.values)]
    for need in step.needs:
        if any(place.is_relative_to(root / need) for _, place in read):
            continue
        for path, place in read:
            others = place.relative_to(root.parent).parts[1:2] if place.is_relative_to(root.parent) else ()
            if others == (need,):
                message = f"needs step '{need}' of this recipe, and reads {path}, which is that of another one."
                raise ConfigError(f"step {step.name}", f"{message} Write {OWN_FOLDER}/{need} for what this one makes.")


def _apply_step_overrides(configs: dict[str, dict[str, Any]], overrides: Sequence[str]) -> None:
    for text in overrides:
        name, dot, rest = text.partition(".")
        if not dot:
            raise ConfigError(
                f"command line: {text}",
                f"an override is STEP.section.name=value. Steps: {', '.join(configs)}.",
            )
        apply_overrides(lookup(configs, name, f"command line: {text}"), [rest])


def _configs_to_check(
    step: StepConfig, values: dict[str, Any], recipe: RecipeConfig, configs: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """Return the keys of a step that checks the data of others: `verb` and `config` of each."""
    place = f"step {step.name}"
    if unknown := values.keys() - {"steps"}:
        raise ConfigError(place, f"unknown key '{min(unknown)}'. {CHECK} knows one: steps, the trainings it is for.")
    trainings = {other.name: other.verb for other in recipe.steps if other.verb in VERB_DEFAULTS}
    names = values.get("steps", list(trainings))
    if not isinstance(names, list) or not names:
        raise ConfigError(place, f"'steps' is a list of trainings (got {names}). Known: {', '.join(trainings)}.")
    found = {}
    for name in names:
        found[name] = {"verb": lookup(trainings, name, f"{place}: steps"), "config": configs[name]}
    return {"steps": found}
