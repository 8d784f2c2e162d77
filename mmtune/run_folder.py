"""The files of a run: what stands where, whether it is complete, what it was made with.

A run folder and each `checkpoint-N/` in it hold the same files, so that each can be asked, continued or compared by
its path alone. Weights are read and written by `models/weights.py`.
"""

import json
import platform
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from mmtune.config import config_from_values, read_yaml, to_yaml
from mmtune.durable import sync_file, sync_files, sync_folder, written_beside
from mmtune.errors import CheckpointError
from mmtune.hashing import file_hash
from mmtune.lookup import nearest
from mmtune.schema import Config, trained_system

CONFIG_FILE = "config.yaml"
MANIFEST_FILE = "manifest.json"
VERSIONS_FILE = "versions.json"
DATA_FILE = "data.json"
PREPROCESSOR_FILE = "preprocessor.json"
TOKENIZER_FOLDER = "tokenizer"
CHECKPOINT_PREFIX = "checkpoint-"
SET_ASIDE_PREFIX = "set-aside-"
"""Before the name of a checkpoint that lies after the one that a run was continued from."""
TEXT_LOG_FILE = "run.log"
TRACKING_FOLDER = "tracking"
STILL_WRITTEN = (TEXT_LOG_FILE, TRACKING_FOLDER)
"""What a complete run may still append to; the manifest leaves it out."""
NOT_OF_THE_RUN = (CHECKPOINT_PREFIX, SET_ASIDE_PREFIX, ".", *STILL_WRITTEN)
"""What the manifest leaves out: it may grow, or be deleted, and the run is as complete as before."""
LIBRARIES = ("mmtune", "torch", "transformers", "peft", "accelerate", "bitsandbytes", "deepspeed")


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON with a line end."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file of a run.

    Raises:
        CheckpointError: it is missing or broken.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(path.parent, f"has no {path.name}: not a complete run folder.") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(path, f"cannot be read: {error}. Take another checkpoint.") from None


def write_settings(folder: Path, config: Config, verb: str, base_models: dict[str, Any], data: dict[str, Any]) -> None:
    """Write the resolved config, the versions and what became of the data."""
    folder.mkdir(parents=True, exist_ok=True)
    text = f"# Resolved config; reproduce the run with: mmtune {verb} THIS_FILE train.output_dir=NEW_FOLDER\n"
    (folder / CONFIG_FILE).write_text(text + to_yaml(config), encoding="utf-8")
    write_json(folder / VERSIONS_FILE, {"verb": verb, "versions": library_versions(), "base_models": base_models})
    write_json(folder / DATA_FILE, data)


def library_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that shape a result."""
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def write_manifest(folder: Path, **facts: Any) -> None:
    """List every file of a finished folder with its size and hash. Written last: with it the folder is complete.

    All files are on the disk before the manifest is, so that a crash of the machine leaves no manifest of lost files.
    """
    files = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        is_own = name != MANIFEST_FILE and not name.startswith(NOT_OF_THE_RUN)
        if path.is_file() and is_own:
            files[name] = {"bytes": path.stat().st_size, "sha256": file_hash(path)}
    sync_files(folder / name for name in files)
    values = {"complete": True, "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **facts, "files": files}
    with written_beside(folder / MANIFEST_FILE) as beside:
        write_json(beside, values)
        sync_file(beside)
    for place in {(folder / name).parent for name in files} | {folder}:
        sync_folder(place)


def is_complete(folder: Path) -> bool:
    """Whether a run or checkpoint was written to its end."""
    return (folder / MANIFEST_FILE).is_file()


def require_complete(folder: Path, *, check_hashes: bool = False) -> None:
    """Check that a folder is a complete run whose files are those of its manifest.

    Args:
        folder: a run folder or a checkpoint.
        check_hashes: read every file; else its size is looked at.

    Raises:
        CheckpointError: it is no run, not complete, or a file is missing, cut off or changed.
    """
    if not folder.is_dir():
        beside = [path.name for path in folder.parent.iterdir()] if folder.parent.is_dir() else []
        hint = nearest(folder.name, beside)
        raise CheckpointError(folder, f"no such folder (resolved to {folder.resolve()}).{hint} Name a run folder.")
    if not is_complete(folder):
        newest = newest_checkpoint(folder)
        hint = (
            f" Its newest checkpoint is {newest}." if newest else " `mmtune pretrain` and `finetune` make run folders."
        )
        raise CheckpointError(folder, f"not a complete run: it has no {MANIFEST_FILE}.{hint}")
    for name, facts in read_json(folder / MANIFEST_FILE)["files"].items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(
                path, "is missing, though the manifest lists it. Restore it or take another checkpoint."
            )
        if path.stat().st_size != facts["bytes"]:
            message = f"has {path.stat().st_size} bytes, the manifest says {facts['bytes']}. Take another checkpoint."
            raise CheckpointError(path, message)
        if check_hashes and file_hash(path) != facts["sha256"]:
            raise CheckpointError(path, "its content is not what the manifest says. Take another checkpoint.")


def checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Return the steps and folders of the checkpoints in a run folder, complete or not, the oldest first."""
    found = []
    for path in folder.glob(f"{CHECKPOINT_PREFIX}*"):
        number = path.name.removeprefix(CHECKPOINT_PREFIX)
        if number.isdigit() and path.is_dir():
            found.append((int(number), path))
    return sorted(found)


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the complete `checkpoint-N` with the largest N, or None."""
    return next((path for _, path in reversed(checkpoints(folder)) if is_complete(path)), None)


def read_config(folder: Path) -> Config:
    """Return the resolved config of a run."""
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise CheckpointError(folder, f"has no {CONFIG_FILE}: not a run folder. Name the output_dir of a training run.")
    return config_from_values(read_yaml(path), str(path), read_verb(folder))


def read_system(folder: Path | str) -> str | None:
    """Return the system message that the training of a run gave, or None."""
    return trained_system(read_config(Path(folder)))


def read_verb(folder: Path) -> str:
    """Return the verb that made a run."""
    return read_json(folder / VERSIONS_FILE)["verb"]
