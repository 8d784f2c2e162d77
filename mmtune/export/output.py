"""The folder that an export is written to: made, marked as ours, never written over somebody's files."""

import os
import shutil
from pathlib import Path
from typing import Any

from mmtune.durable import write_errors_named
from mmtune.errors import ConfigError
from mmtune.run_folder import read_json, write_json

MARK_FILE = "mmtune_export.json"


def prepare_output(folder: Path, facts: dict[str, Any], *, overwrite: bool) -> None:
    """Make an empty folder with the mark of an export.

    Args:
        folder: where the export goes.
        facts: what the mark holds.
        overwrite: delete what is there, if it is an export of ours.

    Raises:
        ConfigError: it is a file, cannot be written, or holds something.
    """
    if folder.is_file():
        raise ConfigError("--output", f"{folder} is a file. Name a folder.")
    if folder.is_dir() and any(folder.iterdir()):
        is_export = (folder / MARK_FILE).is_file()
        if not overwrite:
            mend = "--overwrite replaces it, or name another --output." if is_export else "Name another --output."
            raise ConfigError("--output", f"{folder} is not empty. {mend}")
        if not is_export:
            message = f"{folder.resolve()} holds files but no export, so --overwrite leaves it alone."
            raise ConfigError("--output", f"{message} Name another --output.")
        shutil.rmtree(folder)
    with write_errors_named(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / MARK_FILE, facts)


def add_facts(folder: Path, **facts: Any) -> None:
    """Add to the mark of an export."""
    write_json(folder / MARK_FILE, read_json(folder / MARK_FILE) | facts)


def use_default_modes(folder: Path) -> None:
    """Give every file the usual mode; safetensors writes 0600."""
    umask = os.umask(0)
    os.umask(umask)
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o666 & ~umask)


def folder_size(folder: Path) -> int:
    """Return the bytes of all files of a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
