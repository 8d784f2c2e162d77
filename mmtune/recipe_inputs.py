"""What a step of a recipe was made from: its keys, earlier steps and the content of files; and what became of it."""

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mmtune.data.arrow_records import HUB_PREFIX
from mmtune.data.mixing import path_and_limit
from mmtune.data.source_key import source_key
from mmtune.durable import written_beside
from mmtune.errors import CheckpointError, DataError
from mmtune.hashing import file_hash, value_hash
from mmtune.recipe_file import Step
from mmtune.recipe_steps import VERBS
from mmtune.run_folder import (
    MANIFEST_FILE,
    is_complete,
    newest_checkpoint,
    read_json,
    require_complete,
    write_json,
)
from mmtune.training.differences import flat, shown

SHOWN_CHANGES = 4


@dataclass(frozen=True)
class State:
    """What there is of a step.

    Attributes:
        kind: `absent`; `partial`, to be continued or begun again; `stale`, begun from other inputs, with nothing in it
            that is worth to be kept; `complete`; `damaged`, complete but for files that
            are missing or cut off; `changed`, made from other inputs than it has now.
        note: what was changed or damaged, or the checkpoint to continue from.
    """

    kind: Literal["absent", "partial", "stale", "complete", "damaged", "changed"]
    note: str = ""


def record_path(step: Step) -> Path:
    """Return the file that says what a step was made from. It stands beside its folder, which may be deleted."""
    return step.folder.with_name(f"{step.name}.step.json")


def inputs_of(step: Step) -> dict[str, Any]:
    """Return what decides the output of a step: verb, keys, manifests of the steps it needs, content of its files.

    Hub data and images are known by their names alone.
    """
    needs = {name: _content(str(step.folder.with_name(name))) for name in step.needs}
    files = {path: _content(path) for path in VERBS[step.verb].reads(step.values)}
    return {"verb": step.verb, "config": step.values, "needs": needs, "files": files}


def write_record(step: Step, inputs: dict[str, Any]) -> None:
    """Keep what a step is made from, before it begins."""
    step.folder.parent.mkdir(parents=True, exist_ok=True)
    with written_beside(record_path(step)) as beside:
        write_json(beside, inputs)


def state_of(step: Step, inputs: dict[str, Any]) -> State:
    """Return what there is of a step, given its inputs now."""
    if not step.folder.exists():
        return State("absent")
    checkpoint = newest_checkpoint(step.folder) if step.trains else None
    is_done = is_complete(step.folder)
    changes = _changes(read_json(record_path(step)), inputs) if record_path(step).is_file() else []
    if changes and not is_done and checkpoint is None:
        return State("stale")
    if changes:
        more = f" and {len(changes) - SHOWN_CHANGES} more" if len(changes) > SHOWN_CHANGES else ""
        return State("changed", ", ".join(changes[:SHOWN_CHANGES]) + more)
    if not is_done:
        return State("partial", checkpoint.name if checkpoint else "")
    try:
        require_complete(step.folder)
    except CheckpointError as error:
        return State("damaged", str(error))
    return State("complete")


def missing_inputs(steps: Sequence[Step], folder: Path) -> list[tuple[Step, str]]:
    """Return what steps read that is not there and that no step of the recipe makes.

    Args:
        steps: that are to run.
        folder: of the recipe.
    """
    found = []
    for step in steps:
        for path in VERBS[step.verb].reads(step.values):
            place = Path(path_and_limit(path)[0]).expanduser()
            is_named = not path.startswith(HUB_PREFIX) and not glob.has_magic(path.replace("{", "*"))
            if is_named and not place.exists() and not place.resolve().is_relative_to(folder.resolve()):
                found.append((step, path))
    return found


def _content(path: str) -> str | None:
    """Return a hash of what lies at a path; None where nothing does.

    Of a finished folder it is that of its manifest; of another one, that of names, sizes and times of the files in it.
    """
    if path.startswith(HUB_PREFIX):
        return None
    place = Path(path_and_limit(path)[0])
    try:
        if (place / MANIFEST_FILE).is_file():
            return file_hash(place / MANIFEST_FILE)
        if place.is_dir():
            stamps = [(path.name, path.stat()) for path in sorted(place.iterdir()) if path.is_file()]
            return value_hash([[name, status.st_size, status.st_mtime_ns] for name, status in stamps])
        return source_key(str(place), None)
    except (OSError, DataError):
        return None  # the step itself says what is wrong with it


def _changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return what differs between the inputs of a step then and now, each as a reader sees it."""
    then, today = (flat({key: inputs.get(key) for key in ("verb", "config")}) for inputs in (before, now))
    found = []
    for key in {**then, **today}:
        if then.get(key) != today.get(key):
            found.append(shown(key.removeprefix("config."), then.get(key), today.get(key)))
    for key, what in (("needs", "step"), ("files", "content of")):
        hashes = before.get(key, {})
        found += [f"{what} {name}" for name, value in now[key].items() if hashes.get(name) != value]
    return found
