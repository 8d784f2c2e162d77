"""The card of a recipe: what its steps made and from what, as `card.json`, and as a model card in `README.md`.

What stands in it is read from the folders of the steps; the text is written by `recipe_card_text.py`.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from mmtune.config import read_yaml
from mmtune.durable import written_beside
from mmtune.evaluate.questions import thinned
from mmtune.evaluate.report import REPORT_FILE
from mmtune.evaluate.scores import OWN_CONDITIONS
from mmtune.export.output import MARK_FILE
from mmtune.hashing import value_hash
from mmtune.recipe_card_text import card_text
from mmtune.recipe_file import Step
from mmtune.recipe_inputs import record_path
from mmtune.run_folder import (
    CONFIG_FILE,
    DATA_FILE,
    MANIFEST_FILE,
    VERSIONS_FILE,
    is_complete,
    library_versions,
    read_json,
    write_json,
)
from mmtune.training.callbacks import LOG_FILE, read_log
from mmtune.training.plot import PLOT_FILE

CARD_FILE, PAGE_FILE = "card.json", "README.md"
COMPARISONS = ("compare", "compare-identity")
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
WEIGHTS = (".safetensors", ".gguf", ".pth")
NUM_POINTS = 50
NUM_SAMPLES = 8
NUM_SKIPPED = 20
SAID = ("question", "reference", "answers")

ABSOLUTE = re.compile(
    r"(?<![\w.~/:\\-])(?:file://|~|[A-Za-z]:(?=[\\/]))?[\\/](?:[^\s'\"\\/:,;|]+[\\/])+([^\s'\"\\/:,;|]*)"
)
"""A path inside a text that starts at the root, at a drive or at home; its last part alone is kept."""
SECRET = re.compile(
    r"\b(?:hf_|sk-|ghp_|gho_|github_pat_|glpat-|xox[bp]-|AKIA)[A-Za-z0-9_-]{12,}|(?<=://)[^\s/@:]+:[^\s/@]+(?=@)"
)
"""Tokens of hubs and services by how they begin, and names with passwords in addresses."""


def write_card(folder: Path, steps: Sequence[Step]) -> Path:
    """Write the card of a recipe, and a copy of its page into each export that has no page of its own.

    Args:
        folder: of the recipe.
        steps: all of it; those that are not complete are left out.

    Returns:
        The page.
    """
    card = card_values(folder, steps)
    with written_beside(folder / CARD_FILE) as beside:
        write_json(beside, card)
    exports = [folder / entry["step"] for entry in card["exports"]]
    for place in (folder, *(place for place in exports if PAGE_FILE not in read_json(place / MANIFEST_FILE)["files"])):
        with written_beside(place / PAGE_FILE) as beside:
            beside.write_text(card_text(card, has_plots=place == folder), encoding="utf-8", errors="replace")
    return folder / PAGE_FILE


def card_values(folder: Path, steps: Sequence[Step]) -> dict[str, Any]:
    """Return what the card says as plain values: no place of this machine, no token."""
    done = [step for step in steps if is_complete(step.folder)]
    manifests = {step.name: read_json(step.folder / MANIFEST_FILE) for step in done}
    trainings = [step for step in done if step.trains]
    reports = [(step.name, read_json(step.folder / REPORT_FILE)) for step in done if step.verb in COMPARISONS]
    card = {
        "recipe": folder.name,
        "finished": max((facts["finished"] for facts in manifests.values()), default=None),
        "steps": [_step_values(step, manifests[step.name]) for step in done],
        "base_models": _base_models(done),
        "trainings": [_training_values(step, manifests[step.name]) for step in trainings],
        "checks": [value for step in done if step.verb == "check" for value in _check_values(step)],
        "scores": [{"step": name, "title": report["title"], "rows": report["scores"]} for name, report in reports],
        "benchmarks": [_benchmark(step) for step in done if step.verb == "eval"],
        "samples": [sample for name, report in reports for sample in _samples(name, report)],
        "exports": [
            {"step": step.name, **read_json(step.folder / MARK_FILE)} for step in done if _has(step, MARK_FILE)
        ],
        "versions": _versions(trainings),
    }
    return _without_places(card)


def _has(step: Step, name: str) -> bool:
    return (step.folder / name).is_file()


def _step_values(step: Step, facts: dict[str, Any]) -> dict[str, Any]:
    record = record_path(step)
    weights = {name: file["sha256"] for name, file in facts["files"].items() if name.endswith(WEIGHTS)}
    return {
        "name": step.name,
        "verb": step.verb,
        "finished": facts["finished"],
        "inputs": value_hash(read_json(record)) if record.is_file() else None,
        "weights": value_hash(weights) if weights else None,
    }


def _base_models(done: Sequence[Step]) -> list[dict[str, Any]]:
    found = {}
    for step in done:
        models = read_json(step.folder / VERSIONS_FILE)["base_models"] if _has(step, VERSIONS_FILE) else {}
        for part, facts in models.items():
            is_on_hub = bool(HUB_NAME.fullmatch(facts["name"])) and not Path(facts["name"]).exists()
            found[facts["hash"]] = {"part": part, "name": facts["name"], "is_on_hub": is_on_hub, "hash": facts["hash"]}
    return list(found.values())


def _versions(trainings: Sequence[Step]) -> dict[str, str]:
    """Return the versions of the last training; without one, those that are here."""
    return read_json(trainings[-1].folder / VERSIONS_FILE)["versions"] if trainings else library_versions()


def _training_values(step: Step, facts: dict[str, Any]) -> dict[str, Any]:
    config, data = read_yaml(step.folder / CONFIG_FILE), read_json(step.folder / DATA_FILE)
    log = read_log(step.folder / LOG_FILE)
    skipped = data.get("skipped", [])
    return {
        "step": step.name,
        "verb": step.verb,
        "optimizer_steps": facts["steps"],
        "seconds": facts["train_seconds"],
        "best": facts.get("best"),
        "config": config,
        "seed": config["train"]["seed"],
        "data": {key: value for key, value in data.items() if key not in ("skipped", "validation")},
        "num_skipped": len(skipped),
        "skipped": skipped[:NUM_SKIPPED],
        "loss": thinned([[line["step"], line["loss"]] for line in log if "loss" in line], NUM_POINTS),
        "validation_loss": thinned(
            [[line["step"], line["eval_loss"]] for line in log if "eval_loss" in line], NUM_POINTS
        ),
        "plot": f"{step.name}/{PLOT_FILE}" if _has(step, PLOT_FILE) else None,
    }


def _check_values(step: Step) -> list[dict[str, Any]]:
    keys = ("num_records", "num_bad_records", "num_samples", "num_cut_samples", "num_distinct_images", "num_warnings")
    found = []
    for name in step.values["steps"]:
        path = step.folder / f"{name}.json"
        if path.is_file():
            summary = read_json(path)
            found.append({"step": name, **{key: summary[key] for key in keys}})
    return found


def _benchmark(step: Step) -> dict[str, Any]:
    report = read_json(step.folder / REPORT_FILE)
    facts = {"step": step.name, "title": report["title"], "paper": report["paper"], "of": report["folder"]}
    counts = {key: report[key] for key in ("num_in_benchmark", "num_questions", "num_answered")}
    return facts | counts | {"rows": report["scores"]}


def _samples(name: str, report: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the first question of each set and group, with the answers of all models to the image itself."""
    first: dict[tuple[str, str], dict[str, Any]] = {}
    for entry in report.get("questions", []):
        first.setdefault((entry["set"], entry["group"]), entry)
    found = []
    for entry in list(first.values())[:NUM_SAMPLES]:
        answers = {a["model"]: a["text"] for a in entry["answers"] if a["condition"] in OWN_CONDITIONS}
        sample = {"step": name, "set": entry["set"], "question": entry["question"], "image": entry["image"]}
        found.append(sample | {"reference": entry["reference"], "answers": answers})
    return found


def _without_places(value: Any, key: str = "") -> Any:
    """Return a value whose texts hold no token and, but for what people and models said, no place of this machine."""
    if isinstance(value, dict):
        return {
            _without_places(name): _without_places(entry, key if key in SAID else str(name))
            for name, entry in value.items()
        }
    if isinstance(value, list):
        return [_without_places(entry, key) for entry in value]
    if not isinstance(value, str):
        return value
    value = SECRET.sub("[removed]", value)
    if key in SAID:
        return value
    for kind in (PurePosixPath, PureWindowsPath):
        if kind(value).is_absolute():
            return kind(value).name
    for root in (Path.cwd(), Path.home()):  # their names may have spaces
        value = value.replace(f"{root}{os.sep}", "")
    return ABSOLUTE.sub(lambda match: match[1], value)
