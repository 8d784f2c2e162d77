"""`mmtune merge`: several runs become one, which is a run folder like those that training leaves."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mmtune.build import load_run
from mmtune.config import to_yaml
from mmtune.durable import write_errors_named
from mmtune.errors import CheckpointError, ConfigError
from mmtune.models.combining import MERGED, Combination, adapter_options, combine_adapters
from mmtune.models.stacking import adapter_folders, add_adapter, require_shareable
from mmtune.models.weights import (
    ADAPTER_FOLDER,
    PROJECTOR_FILE,
    TRAINED,
    held_parts,
    read_tensors,
    save_named_adapter,
    stacked_names,
    write_tensors,
)
from mmtune.run_folder import (
    CONFIG_FILE,
    DATA_FILE,
    VERSIONS_FILE,
    library_versions,
    read_config,
    read_json,
    require_complete,
    write_json,
    write_manifest,
)
from mmtune.same_models import require_same_llm, require_same_vision
from mmtune.schema import Config

SEED = 42


@dataclass(frozen=True)
class WeightedRun:
    """A run, the share it has in the result, and whether it sees."""

    folder: Path
    weight: float
    config: Config

    @property
    def sees(self) -> bool:
        """Whether it has a projector."""
        return self.config.model.projector is not None


def merge_runs(
    folders: Sequence[Path | str],
    output: Path | str,
    weights: Sequence[float] | None = None,
    how: Combination | None = None,
    *,
    llm: str | None = None,
    vision: str | None = None,
) -> str:
    """Merge the adapters and average the projectors of runs, and write a complete run folder.

    A stacked run brings all adapters of its stack, each with the run's weight. Projectors are averaged with the weights
    of the runs that see, divided by their sum; runs on text alone may be among them.

    Args:
        folders: run folders or checkpoints, on the same base models and with the same template.
        output: the folder to write; empty or not there.
        weights: one a run; None weighs all the same, in sum 1.
        how: the combination; None is `cat` for LoRA and `linear` for IA3.
        llm: where the base language model is now, if it moved.
        vision: where the vision encoder is now, if it moved.

    Returns:
        What was done, in a line.

    Raises:
        MMTuneError: the runs do not go together, or PEFT cannot combine their adapters.
    """
    how, output = how or Combination(), Path(output)
    runs = _weighted([Path(folder) for folder in folders], weights)
    lead = next((run for run in runs if run.sees), runs[0])
    _check(runs, lead)
    _require_empty(output)
    parts = load_run(lead.folder, llm=llm, vision=vision)
    model: Any = parts.model.llm
    names = _add_adapters(model, runs, lead)
    torch.manual_seed(SEED)  # DARE draws what it drops
    chosen = combine_adapters(model, names, how)
    projector = _average([run for run in runs if run.sees])
    _make(output)
    save_named_adapter(model, MERGED, output / ADAPTER_FOLDER)
    if projector is not None:
        write_tensors(output / PROJECTOR_FILE, projector)
    parts.save_readers(output)
    options = adapter_options(model, MERGED)
    _write_settings(output, runs, lead, options, chosen)
    rank = f", rank {options['r']}" if "r" in options else ""
    return f"{output}: {_sum_of(runs)} by {chosen}{rank}"


def _add_adapters(model: Any, runs: list[WeightedRun], lead: WeightedRun) -> dict[str, float]:
    """Put the adapters of all runs on the model of one; return PEFT's name and the weight of each."""
    names: dict[str, float] = {}
    own = (*stacked_names(model), TRAINED)
    for number, run in enumerate(runs):
        if run is lead:
            names |= dict.fromkeys(own, run.weight)
            continue
        for layer, path in enumerate(adapter_folders(run.folder)):
            add_adapter(model, path, f"run_{number}_{layer}")
            names[f"run_{number}_{layer}"] = run.weight
    return names


def _sum_of(runs: list[WeightedRun]) -> str:
    return " + ".join(f"{run.weight:g} {run.folder}" for run in runs)


def _weighted(folders: list[Path], weights: Sequence[float] | None) -> list[WeightedRun]:
    if weights is None:
        weights = [1 / len(folders)] * len(folders)
    if len(weights) != len(folders):
        raise ConfigError("--weights", f"{len(weights)} weights for {len(folders)} runs. Give each run one.")
    if not all(map(math.isfinite, weights)):
        raise ConfigError("--weights", f"weights are numbers (got {', '.join(map(str, weights))}). Mend them.")
    for folder in folders:
        require_complete(folder)
    return [WeightedRun(folder, weight, read_config(folder)) for folder, weight in zip(folders, weights, strict=True)]


def _check(runs: list[WeightedRun], lead: WeightedRun) -> None:
    """Refuse runs that do not stand on the same models, or that trained what cannot be merged."""
    for run in runs:
        require_same_llm(run.folder, lead.folder)
        held = held_parts(run.folder)
        if "adapter" not in held:
            tune = run.config.model.llm.tune
            raise CheckpointError(run.folder, f"holds no adapter to merge (model.llm.tune: {tune}). Leave it out.")
        others = [part for part in held if part not in ("adapter", "projector")]
        if others:
            message = f"holds a trained {' and '.join(others)}, which merging would lose."
            raise CheckpointError(run.folder, f"{message} Take runs with a frozen vision encoder.")
        for path in adapter_folders(run.folder):
            require_shareable(path)
        if run.sees:
            require_same_vision(run.folder, lead.folder)
            ours, theirs = run.config.model.projector, lead.config.model.projector
            assert ours is not None
            assert theirs is not None
            if (ours.kind, ours.standardize) != (theirs.kind, theirs.standardize):
                message = f"its projector is another kind ({ours.kind}, standardize: {ours.standardize}) than that of"
                raise CheckpointError(run.folder, f"{message} {lead.folder}. Merge runs with projectors of one kind.")
    if lead.sees and sum(run.weight for run in runs if run.sees) <= 0:
        message = "the weights of the runs that see must sum to more than 0: projectors are averaged with them."
        raise ConfigError("--weights", f"{message} Give larger ones.")


def _average(runs: list[WeightedRun]) -> dict[str, torch.Tensor] | None:
    """Average projectors with the runs' weights divided by their sum; None without any. Statistics are averaged too."""
    total = sum(run.weight for run in runs)
    found: dict[str, torch.Tensor] = {}
    for run in runs:
        for name, value in read_tensors(run.folder / PROJECTOR_FILE).items():
            part = value.double() * (run.weight / total)
            found[name] = found[name] + part if name in found else part
    return {name: value.float() for name, value in found.items()} or None


def _require_empty(output: Path) -> None:
    if output.is_file():
        raise ConfigError("--output", f"{output} is a file. Name a folder.")
    if output.is_dir() and any(output.iterdir()):
        raise ConfigError("--output", f"{output} is not empty. Name another --output.")


def _make(output: Path) -> None:
    with write_errors_named(output):
        output.mkdir(parents=True, exist_ok=True)


def _write_settings(
    output: Path, runs: list[WeightedRun], lead: WeightedRun, adapter: dict[str, Any], chosen: str
) -> None:
    """Write the config that the result is built by, where it comes from, and the manifest."""
    config = read_config(lead.folder)
    config.model.adapter, config.model.stack_on = adapter, []
    config.train.output_dir = str(output)
    before = read_json(lead.folder / VERSIONS_FILE)
    merged_from = [
        {"run": str(run.folder), "weight": run.weight, "data": read_json(run.folder / DATA_FILE)} for run in runs
    ]
    origin = {"combination": chosen, "runs": [{"run": fact["run"], "weight": fact["weight"]} for fact in merged_from]}
    comment = f"# Merged, not trained: {_sum_of(runs)}, by {chosen}."
    comment += f" The keys under data and train are those of {lead.folder}.\n"
    (output / CONFIG_FILE).write_text(comment + to_yaml(config), encoding="utf-8")
    versions = {key: before[key] for key in ("verb", "base_models")}
    write_json(output / VERSIONS_FILE, {**versions, "versions": library_versions(), "merged_from": origin})
    write_json(output / DATA_FILE, {"merged_from": merged_from})
    write_manifest(output, merged_from=origin)
