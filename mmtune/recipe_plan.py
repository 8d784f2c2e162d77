"""`mmtune run --dry-run`: what a recipe would do now, and what its trainings need. Nothing runs, nothing is written."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmtune.config import config_from_values, read_yaml
from mmtune.recipe import recipe_folder, steps_from
from mmtune.recipe_file import Step, read_steps
from mmtune.recipe_inputs import State, inputs_of, missing_inputs, state_of
from mmtune.recipe_steps import VERBS
from mmtune.run_folder import MANIFEST_FILE, read_json
from mmtune.shipped import find_config
from mmtune.training.plan_time import duration
from mmtune.training.planning import Report, plan_run, short_lines

INDENT = "    "


@dataclass(frozen=True)
class PlannedStep:
    """What would become of a step.

    Attributes:
        step: the step.
        state: what there is of it.
        waits_for: earlier steps that would run before it and that it reads.
        missing: what it reads that is not there, and that no step makes.
        plan: of a training that would run; None of others, and where an adapter that it stands on is yet to be made.
    """

    step: Step
    state: State
    waits_for: tuple[str, ...]
    missing: tuple[str, ...]
    plan: Report | None

    @property
    def runs(self) -> bool:
        """Whether there is something to do."""
        return self.state.kind != "complete" or bool(self.waits_for)


def plan_recipe(
    name_or_path: Path | str,
    overrides: Sequence[str] = (),
    *,
    first: str | None = None,
    gpu_memory: float | None = None,
    probes: bool = False,
    root: Path | None = None,
) -> list[PlannedStep]:
    """Say what `run_recipe` would do.

    Args:
        name_or_path: the recipe: a file, or a shipped one such as `demo`.
        overrides: `STEP.section.name=value` texts.
        first: the step to begin with.
        gpu_memory: GiB of the card that trainings are planned for; None takes the device that is here.
        probes: load the models and run the longest batches, so that times are known.
        root: where runs go; None takes `runs`.

    Raises:
        MMTuneError: the recipe is wrong, or a training cannot be planned.
    """
    path = find_config(name_or_path)
    folder = recipe_folder(path, root)
    planned: list[PlannedStep] = []
    for step in steps_from(read_steps(read_yaml(path), path, folder, overrides), first):
        state = state_of(step, inputs_of(step))
        waits_for = tuple(other.step.name for other in planned if other.runs and _reads(step, other.step))
        missing = tuple(name for _, name in missing_inputs([step], folder))
        entry = PlannedStep(step, state, waits_for, missing, None)
        if step.trains and entry.runs:
            entry = replace(entry, plan=_plan(step, gpu_memory, probes))
        planned.append(entry)
    return planned


def _reads(step: Step, earlier: Step) -> bool:
    """Whether a step reads what an earlier one writes: it says so, or a path of its keys lies there."""
    paths = [Path(path) for path in VERBS[step.verb].reads(step.values)]
    return earlier.name in step.needs or any(path.resolve().is_relative_to(earlier.folder.resolve()) for path in paths)


def _plan(step: Step, gpu_memory: float | None, probes: bool) -> Report | None:
    config = config_from_values(step.values, f"step {step.name}", step.verb)
    if not all(Path(path).exists() for path in config.model.stack_on):
        return None
    return plan_run(config, gpu_memory=gpu_memory, reads_data=True, probes=probes)


def plan_lines(planned: list[PlannedStep], *, overwrite: bool) -> Iterator[str]:
    """Yield the plan of a recipe as lines of text.

    Args:
        planned: its steps.
        overwrite: steps whose inputs changed are made anew.
    """
    width = max(len(entry.step.name) for entry in planned)
    for number, entry in enumerate(planned, 1):
        yield f"{number} {entry.step.name:{width}}  {entry.step.verb}: {_what_happens(entry, overwrite)}"
        yield from (f"{INDENT}not there, and no step makes it: {path}" for path in entry.missing)
        if entry.plan is not None:
            yield from (INDENT + line for line in short_lines(entry.plan))
        elif entry.runs and entry.step.trains:
            yield f"{INDENT}memory: known when the adapters of model.stack_on are there"
    known = [
        entry.plan.probed_seconds() for entry in planned if entry.plan is not None and entry.plan.probe is not None
    ]
    if known and None not in known:
        yield f"trainings take about {duration(sum(value for value in known if value is not None))} in all"


def _what_happens(entry: PlannedStep, overwrite: bool) -> str:
    kind, note = entry.state.kind, entry.state.note
    if kind in ("changed", "damaged"):
        found = "inputs changed" if kind == "changed" else "files are damaged"
        return f"{found} ({note}): {'made anew' if overwrite else 'stops here; --overwrite makes it anew'}"
    if kind == "complete" and entry.waits_for:
        then = "made anew" if overwrite else "stops here if that changes; --overwrite makes it anew"
        return f"complete, but {' and '.join(entry.waits_for)} will run before: {then}"
    if kind == "complete":
        return f"complete{_took(entry.step)}: not repeated"
    after = f" after {' and '.join(entry.waits_for)}" if entry.waits_for else ""
    if kind == "partial" and note:
        return f"continues from {note}{after}"
    return f"{'runs' if kind == 'absent' else 'begins again'}{after}"


def _took(step: Step) -> str:
    facts: dict[str, Any] = read_json(step.folder / MANIFEST_FILE)
    return f", took {duration(facts['train_seconds'])}" if "train_seconds" in facts else ""
