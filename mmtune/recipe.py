"""`mmtune run`: the steps of a recipe, each once, in order, continued where they were interrupted."""

import logging
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmtune.config import read_yaml
from mmtune.errors import CheckpointError, ConfigError
from mmtune.lookup import lookup
from mmtune.recipe_card import write_card
from mmtune.recipe_file import Step, read_steps
from mmtune.recipe_inputs import inputs_of, missing_inputs, state_of, write_record
from mmtune.recipe_steps import VERBS
from mmtune.run_folder import require_complete
from mmtune.shipped import find_config
from mmtune.training.run_lock import run_lock

log = logging.getLogger(__name__)


def run_recipe(
    name_or_path: Path | str,
    overrides: Sequence[str] = (),
    *,
    first: str | None = None,
    overwrite: bool = False,
    root: Path | None = None,
) -> Path:
    """Run the steps of a recipe; what is complete and unchanged is not repeated. At the end there is a card.

    Args:
        name_or_path: the recipe: a file, or a shipped one such as `demo`.
        overrides: `STEP.section.name=value` texts for the configs of its steps.
        first: the step to begin with; what is there of those before it is taken as it is.
        overwrite: repeat steps whose inputs changed or whose files are damaged instead of stopping at them.
        root: where runs go; None takes `runs`.

    Returns:
        The recipe's folder, `runs/<recipe>`.

    Raises:
        MMTuneError: the recipe or a step is wrong.
    """
    path = find_config(name_or_path)
    folder = recipe_folder(path, root)
    run_steps(read_yaml(path), path, folder, overrides, first=first, overwrite=overwrite)
    return folder


def recipe_folder(path: Path, root: Path | None = None) -> Path:
    """Return where a recipe writes."""
    return (root or Path("runs")) / path.stem


def run_steps(
    values: dict[str, Any],
    place: Path | str,
    folder: Path,
    overrides: Sequence[str],
    *,
    first: str | None = None,
    overwrite: bool = False,
) -> None:
    """Run the steps of a recipe that is at hand as plain values; see `run_recipe`.

    Args:
        values: the keys of `RecipeConfig`.
        place: what errors name as the recipe.
        folder: where each step has a folder of its own.
        overrides: `STEP.section.name=value` texts.
        first: the step to begin with.
        overwrite: repeat steps whose inputs changed or whose files are damaged.

    Raises:
        MMTuneError: the recipe or a step is wrong, or a file is missing that a later step reads.
    """
    every = read_steps(values, place, folder, overrides)
    chosen = steps_from(every, first)
    for step, path in missing_inputs(chosen, folder):
        message = f"{path} is not there (resolved to {Path(path).resolve()}), and no step makes it."
        raise ConfigError(f"step {step.name}", f"{message} Mend the path, or put the file there.")
    started = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    with run_lock(folder, "name for the recipe's file"):
        for step in chosen:
            log.info("step %d of %d: %s", every.index(step) + 1, len(every), step.name)
            _run_step(step, overwrite)
        card = write_card(folder, every)
    log.info("%s done in %.0f s; its card is %s", folder.name, time.monotonic() - started, card)


def steps_from(steps: list[Step], first: str | None) -> list[Step]:
    """Return the steps from one on.

    Args:
        steps: of a recipe.
        first: the name of the one to begin with; None is the first of all.

    Raises:
        ConfigError: there is no such step.
        CheckpointError: a step from there on needs an earlier one that is not complete.
    """
    if first is None:
        return steps
    by_name = {step.name: step for step in steps}
    chosen = steps[steps.index(lookup(by_name, first, "--from")) :]
    for step in chosen:
        for need in step.needs:
            earlier = by_name[need]
            if earlier in chosen:
                continue
            try:
                require_complete(earlier.folder)
            except CheckpointError:
                message = f"step '{step.name}' needs step '{need}', which is not complete in {earlier.folder}."
                raise ConfigError(f"--from {first}", f"{message} Take --from {need}, or leave --from out.") from None
    return chosen


def _run_step(step: Step, overwrite: bool) -> None:
    inputs = inputs_of(step)
    state = state_of(step, inputs)
    if state.kind == "complete":
        log.info("%s is complete and its inputs are unchanged: not repeated", step.folder)
        return
    if state.kind in ("changed", "damaged") and not overwrite:
        raise CheckpointError(step.folder, f"{_why(step, state.kind, state.note)} --overwrite makes it anew.")
    if state.kind in ("changed", "damaged", "stale"):
        shutil.rmtree(step.folder)
    write_record(step, inputs)
    VERBS[step.verb].run(step.values, step.folder, step.verb)


def _why(step: Step, kind: str, note: str) -> str:
    if kind == "damaged":
        return f"step '{step.name}' was complete, and is not any more: {note}"
    return f"was made from another config or other inputs than step '{step.name}' has now ({note})."
