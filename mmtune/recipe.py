"""The steps of `mmtune run`: each once, in order, continued where they were interrupted."""

import logging
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING, OmegaConf
from rich.console import Console

from mmtune.config import apply_overrides, check_keys, config_from_values, read_yaml
from mmtune.errors import CheckpointError, ConfigError
from mmtune.hashing import file_hash, value_hash
from mmtune.lookup import lookup
from mmtune.recipe_identity import CompareIdentityConfig, IdentityConfig, compare_identity, make_data
from mmtune.run_folder import MANIFEST_FILE, is_complete, read_json, write_json, write_manifest
from mmtune.schema import VERB_DEFAULTS
from mmtune.shipped import find_config

log = logging.getLogger(__name__)


@dataclass
class StepConfig:
    """One step of a recipe."""

    name: str = MISSING  # its output is runs/<recipe>/<name>
    verb: str = MISSING  # a key of VERBS
    config: Any = None  # a config file, a shipped name, or the keys themselves
    overrides: list[str] = field(default_factory=list)  # section.name=value
    needs: list[str] = field(default_factory=list)  # names of earlier steps


@dataclass
class RecipeConfig:
    """A recipe: steps in order."""

    steps: list[StepConfig] = field(default_factory=list)


@dataclass
class CompareConfig:
    """What the `compare` step asks."""

    models: list[str] = MISSING  # run folders from before to after; `base` is the untrained language model
    questions: dict[str, str] = MISSING  # name of the set -> questions file
    controls: list[str] = field(default_factory=list)
    num_control_questions: int | None = None  # ask the controls on so many questions, spread evenly; None: on all
    max_new_tokens: int = 64
    batch_size: int = 32
    title: str = "Before and after"
    labels: dict[str, str] = field(default_factory=dict)  # name of a model -> what to call it on the page
    credits: list[str] = field(default_factory=list)


@dataclass
class ScenesConfig:
    """What the `make-scenes` step makes; see `mmtune.data.makers.scenes.make_scenes`."""

    seed: int = 0
    num_caption_images: int = 1080
    num_dialogue_images: int = 400
    num_heldout_captions: int = 100
    num_heldout_questions_per_group: int = 50
    num_unseen_questions_per_group: int = 10
    num_text_repeats: int = 3
    image_size: int = 160


@dataclass
class EasyVQAConfig:
    """What the `make-easy-vqa` step makes; see `mmtune.data.makers.easy_vqa.make_easy_vqa`."""

    seed: int = 0
    num_train_images: int | None = None
    num_test_images: int | None = None
    num_validation_images: int = 0
    with_evidence: bool = False
    max_questions_per_record: int | None = None
    balance_verdicts: bool = False


def _train(values: dict[str, Any], folder: Path, verb: str) -> None:
    from mmtune.training.run import train

    train(config_from_values(values, str(folder), verb), verb, resume=True)


def _make_scenes(values: dict[str, Any], folder: Path, verb: str) -> None:
    from mmtune.data.makers.scenes import make_scenes

    shutil.rmtree(folder, ignore_errors=True)
    make_scenes(folder, **vars(_typed(values, ScenesConfig, "make-scenes")))
    write_manifest(folder)


def _make_easy_vqa(values: dict[str, Any], folder: Path, verb: str) -> None:
    from mmtune.data.makers.easy_vqa import make_easy_vqa

    shutil.rmtree(folder, ignore_errors=True)
    make_easy_vqa(folder, **vars(_typed(values, EasyVQAConfig, "make-easy-vqa")))
    write_manifest(folder)


def _compare(values: dict[str, Any], folder: Path, verb: str) -> None:
    from mmtune.chat.generate import Decoding
    from mmtune.evaluate.compare import compare_models
    from mmtune.evaluate.questions import read_questions
    from mmtune.evaluate.report import PAGE_FILE, build_report, print_report, write_report

    config = _typed(values, CompareConfig, "compare")
    if not config.models:
        raise ConfigError("compare", "'models' names no model. Give run folders, such as [base, runs/demo/finetune].")
    shutil.rmtree(folder, ignore_errors=True)
    questions = [q for name, path in config.questions.items() for q in read_questions(path, set_name=name)]
    decoding = Decoding(max_new_tokens=config.max_new_tokens)
    comparison = compare_models(
        config.models,
        questions,
        controls=config.controls,
        num_control_questions=config.num_control_questions,
        decoding=decoding,
        batch_size=config.batch_size,
    )
    for model in comparison.models:
        model["label"] = config.labels.get(model["name"], model["label"])
    report = build_report(comparison, config.models, config.title, config.credits)
    write_report(report, folder)
    write_manifest(folder)
    console = Console()
    print_report(report, console)
    console.print(f"\nThe page with all answers: {(folder / PAGE_FILE).resolve()}", soft_wrap=True, highlight=False)


def _make_identity(values: dict[str, Any], folder: Path, verb: str) -> None:
    make_data(folder, _typed(values, IdentityConfig, verb))


def _compare_identity(values: dict[str, Any], folder: Path, verb: str) -> None:
    config = _typed(values, CompareIdentityConfig, verb)
    shutil.rmtree(folder, ignore_errors=True)
    compare_identity(folder, config)


VERBS: dict[str, Callable[[dict[str, Any], Path, str], None]] = {
    "pretrain": _train,
    "finetune": _train,
    "sft": _train,
    "make-scenes": _make_scenes,
    "make-easy-vqa": _make_easy_vqa,
    "compare": _compare,
    "make-identity": _make_identity,
    "compare-identity": _compare_identity,
}


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
    recipe = _typed(values, RecipeConfig, str(place))
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


def _typed(values: dict[str, Any], schema: Any, place: str) -> Any:
    """Return plain values as a dataclass, its keys and types checked."""
    from omegaconf.errors import OmegaConfBaseException

    check_keys(values, schema, place)
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), values))
    except OmegaConfBaseException as error:
        raise ConfigError(place, f"{str(error).splitlines()[0]}. Mend the value.") from None
