"""Which trained adapters a config stacks its new one on, and what `init_from` still has to give then."""

import dataclasses
from pathlib import Path

from mmtune.errors import CheckpointError, ConfigError
from mmtune.hashing import sampled_hash
from mmtune.models.language import llm_folder
from mmtune.models.stacking import CONFIG_FILE, adapter_folders, hold_the_same, stacked_folders
from mmtune.models.weights import held_parts
from mmtune.run_folder import VERSIONS_FILE, read_json, require_complete
from mmtune.schema import ModelConfig


def stack_of(config: ModelConfig) -> list[Path]:
    """Return the folders of all adapters below the new one, the lowest first; a stacked run brings its whole stack.

    Raises:
        ConfigError: a run is named twice.
        CheckpointError: a run is incomplete, has no adapter, or was trained on another language model.
    """
    found: list[Path] = []
    for name in config.stack_on:
        folder = Path(name)
        if not (folder / CONFIG_FILE).is_file():  # else a folder with an adapter alone
            _check_run(config, folder)
        for adapter in adapter_folders(folder):
            if adapter.resolve() in [path.resolve() for path in found]:
                raise ConfigError("model.stack_on", f"{adapter} would be added twice. Name each run once.")
            found.append(adapter)
    return found


def _check_run(config: ModelConfig, folder: Path) -> None:
    require_complete(folder)
    if "adapter" not in held_parts(folder):
        raise CheckpointError(folder, "holds no adapter to stack on. Name a run with model.llm.tune: adapter.")
    base = llm_folder(config.llm.name_or_path, config.hub)
    before = read_json(folder / VERSIONS_FILE)["base_models"]["llm"]
    if before["hash"] != sampled_hash(base):
        message = f"its adapter was trained on another language model than {base} ({before['name']})."
        raise CheckpointError(folder, f"{message} Stack adapters of one base model.")


def with_own_stack(config: ModelConfig, folder: Path) -> ModelConfig:
    """Return the config with the frozen adapters that a run folder holds, so that the runs they come from may go."""
    return dataclasses.replace(config, stack_on=[str(path) for path in stacked_folders(folder)])


def initial_parts(config: ModelConfig, folder: Path) -> list[str]:
    """Return which parts of the run that `init_from` names a new model starts from.

    The adapter is none of them where the new one is stacked on it: it is there already.

    Raises:
        CheckpointError: the run has nothing to start from, or its adapter needs others that this config leaves out.
    """
    held = held_parts(folder)
    is_stacked_on = folder.resolve() in [Path(name).resolve() for name in config.stack_on]
    if is_stacked_on:
        held = [part for part in held if part != "adapter"]
    elif (below := stacked_folders(folder)) and not hold_the_same(below, stack_of(config)):
        message = f"its adapter was trained on top of others ({len(below)}), which this config lacks."
        raise CheckpointError(folder, f"{message} Set model.stack_on: [{folder}], or the model.stack_on of that run.")
    if not held:
        mend = "Leave init_from out." if is_stacked_on else "Name a run folder of `mmtune pretrain`."
        what = "no trained weights but the adapter that stack_on names" if is_stacked_on else "no trained weights"
        raise CheckpointError(folder, f"holds {what}. {mend}")
    return held
