"""The steps of `mmtune run`: each once, in order, continued where they were interrupted."""

import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from mmtune.config import apply_overrides, read_yaml
from mmtune.errors import CheckpointError, ConfigError
from mmtune.hashing import file_hash, value_hash
from mmtune.lookup import lookup
from mmtune.recipe_steps import VERBS, typed_values
from mmtune.run_folder import MANIFEST_FILE, is_complete, read_json, write_json
from mmtune.schema import VERB_DEFAULTS
from mmtune.shipped import find_config

log = logging.getLogger(__name__)


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


def run_recipe(
    name_or_path: Path | str, overrides: Sequence[str] = (), *, overwrite: bool = False, root: Path | None = None
) -> Path:
    """Run the steps of a recipe; what is complete and unchanged is not repeated.

    Args:
        name_or_path: the recipe: a file, or a shipped one such as `demo`.
        overrides: `STEP.section.name=value` texts for the configs of its steps.
        overwrite: repeat steps whose inputs changed instead of stopping at them.
        root: where runs go; None takes `runs`.

    Returns:
        The recipe's folder, `runs/<recipe>`.

    Raises:
        MMTuneError: the recipe or a step is wrong.
    """
    path = find_config(name_or_path)
    folder = (root or Path("runs")) / path.stem
    run_steps(read_yaml(path), path, folder, [*overrides], overwrite=overwrite)
    return folder


def run_steps(
    values: dict[str, Any], place: Path | str, folder: Path, overrides: list[str], *, overwrite: bool = False
) -> None:
    """Run the steps of a recipe that is at hand as plain values; see `run_recipe`.

    Args:
        values: the keys of `RecipeConfig`.
        place: what errors name as the recipe.
        folder: where each step has a folder of its own.
        overrides: `STEP.section.name=value` texts.
        overwrite: repeat steps whose inputs changed instead of stopping at them.
    """
    recipe = typed_values(values, RecipeConfig, str(place))
    _check_steps(recipe, place)
    configs = [_step_values(step, folder) for step in recipe.steps]
    _apply_step_overrides(recipe, configs, overrides)
    started = time.monotonic()
    for number, (step, config) in enumerate(zip(recipe.steps, configs, strict=True), 1):
        log.info("step %d of %d: %s", number, len(recipe.steps), step.name)
        _run_step(step, config, folder, overwrite)
    log.info("%s done in %.0f s", folder.name, time.monotonic() - started)


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
        if not step.name.strip() or step.name in earlier:
            raise ConfigError(path, f"'{step.name}' is no name for a step: names are not empty and each stands once.")
        for need in step.needs:
            if need not in earlier:
                known = ", ".join(earlier) or "none"
                raise ConfigError(
                    path, f"step '{step.name}' needs '{need}', which is no earlier step. Earlier: {known}."
                )
        if step.config is not None and not isinstance(step.config, str | dict):
            raise ConfigError(path, f"step '{step.name}': 'config' is a file, a shipped name or a section of keys.")
        earlier.append(step.name)


def _run_step(step: StepConfig, values: dict[str, Any], folder: Path, overwrite: bool) -> None:
    run = lookup(VERBS, step.verb, f"step {step.name}: verb")
    target, record = folder / step.name, folder / f"{step.name}.step.json"
    needs = {name: file_hash(folder / name / MANIFEST_FILE) for name in step.needs}
    inputs = value_hash({"verb": step.verb, "config": values, "needs": needs})
    is_changed = record.is_file() and read_json(record)["inputs"] != inputs
    if is_changed and target.exists():
        if not overwrite:
            message = f"was made from another config or other inputs than step '{step.name}' has now."
            raise CheckpointError(target, f"{message} --overwrite makes it anew.")
        shutil.rmtree(target)
    if is_complete(target):
        log.info("%s is complete: not repeated", target)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    write_json(record, {"inputs": inputs, "verb": step.verb, "needs": needs})
    run(values, target, step.verb)


def _step_values(step: StepConfig, folder: Path) -> dict[str, Any]:
    values: Any = read_yaml(find_config(step.config)) if isinstance(step.config, str) else step.config or {}
    if step.verb in VERB_DEFAULTS:
        values.setdefault("train", {})["output_dir"] = str(folder / step.name)
    apply_overrides(values, list(step.overrides))
    return values


def _apply_step_overrides(recipe: RecipeConfig, configs: list[dict[str, Any]], overrides: list[str]) -> None:
    by_name = dict(zip((step.name for step in recipe.steps), configs, strict=True))
    for text in overrides:
        name, dot, rest = text.partition(".")
        if not dot:
            raise ConfigError(
                f"command line: {text}",
                f"an override is STEP.section.name=value. Steps: {', '.join(by_name)}.",
            )
        apply_overrides(lookup(by_name, name, f"command line: {text}"), [rest])
