"""From a model that a loop of one's own has trained to a run folder, as the verbs read it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from mmtune.build import base_models
from mmtune.config import fitting_verb, to_values
from mmtune.errors import ConfigError
from mmtune.models.weights import save_weights
from mmtune.parts import Parts
from mmtune.run_folder import write_manifest, write_settings
from mmtune.schema import Config


def save_run(folder: Path | str, config: Config, parts: Parts, *, data: dict[str, Any] | None = None) -> Path:
    """Write a model as a complete run folder, which chat, compare, merge, export and `init_from` take.

    Args:
        folder: empty or not there.
        config: that `parts` were built by. What it says under `data` and `train` is recorded as it is.
        parts: the model, with what reads for it.
        data: what `data.json` says of the data; the places of the records, for instance.

    Raises:
        ConfigError: the folder holds something, or cannot be written to.
    """
    folder = Path(folder)
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise ConfigError(folder, "holds something already. Name another folder.")
    config = replace(config, train=replace(config.train, output_dir=str(folder)))
    try:
        write_settings(folder, config, fitting_verb(to_values(config)), base_models(config.model), data or {})
    except OSError as error:
        raise ConfigError(folder, f"cannot be written to: {error.strerror}. Name another folder.") from None
    save_weights(parts.model, folder)
    parts.save_readers(folder)
    write_manifest(folder)
    return folder
