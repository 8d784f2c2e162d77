"""Read the records of a data source one by one, each with its place: which reader is for what.

The readers are in files of their own (`json_records`, `table_records`, `arrow_records`, `tar_records`). Knows no format
of conversation.
"""

import glob
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from mmtune.data.arrow_records import (
    HUB_PREFIX,
    is_saved_dataset,
    read_hub_dataset,
    read_hub_stream,
    read_parquet,
    read_saved_dataset,
)
from mmtune.data.extras import import_extra
from mmtune.data.json_records import read_json
from mmtune.data.record import Record
from mmtune.data.table_records import read_csv, read_tsv, read_xlsx
from mmtune.data.tar_records import read_tar
from mmtune.errors import DataError

READERS: dict[str, Callable[[Path], Iterator[Record]]] = {
    ".parquet": read_parquet,
    ".tar": read_tar,
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".xlsx": read_xlsx,
}
"""How a file's name ends -> what reads it. Files of other names are JSON or JSON lines, plain or gzipped."""

_PACKED_TAR = "is a compressed tar, in which no image can be reached alone. Unpack it, or write plain .tar shards."
REFUSED = {
    ".tar.gz": _PACKED_TAR,
    ".tgz": _PACKED_TAR,
    ".tar.bz2": _PACKED_TAR,
    ".tar.xz": _PACKED_TAR,
    ".tar.zst": _PACKED_TAR,
    ".xls": "is a workbook of the old kind. Save it as .xlsx or .csv.",
    ".zip": "is a zip archive. Unpack it and name the file inside.",
}
"""How a file's name ends -> why it is not read, and the mend."""

NEEDS_JUMPS = (".parquet", ".tar", ".xlsx")

SHARDS = (".parquet", ".tar")
"""What a folder may hold to be read whole."""


def read_records(path: Path | str, *, split: str | None = None) -> Iterator[Record]:
    """Yield the records of a data source, streamed.

    A source is a file (JSON, JSON lines, parquet, WebDataset tar, CSV, TSV, Excel), a pattern of files (`{000..009}`,
    `*`), a folder of parquet files or of tar shards, a folder that `datasets` saved, or `hub:OWNER/NAME`.

    Args:
        path: the source.
        split: which split of a `datasets` folder or of a hub data set; None takes `train`.

    Yields:
        The records in order. One that cannot be read has a `problem`, where the source goes on behind it.

    Raises:
        DataError: the source is missing, unreadable, empty or broken; the message holds the line where there is one.
    """
    if str(path).startswith(HUB_PREFIX):
        yield from read_hub_dataset(str(path), split)
    elif is_saved_dataset(Path(path)):
        yield from read_saved_dataset(Path(path), split)
    elif split is not None:
        raise DataError(path, f"has no splits (got '{split}'). Only saved data sets and hub: names have: leave it out.")
    else:
        for file in data_files(path):
            yield from _read_file(file)


def stream_records(path: Path | str, *, split: str | None = None) -> Iterator[Record]:
    """Yield what `read_records` yields; a hub data set is fetched while it is read, and never lies on the disk."""
    if str(path).startswith(HUB_PREFIX):
        yield from read_hub_stream(str(path), split)
    else:
        yield from read_records(path, split=split)


def read_once(path: Path | str) -> list[Path]:
    """Return the files of a source that can be read only once: pipes, sockets and devices.

    Raises:
        DataError: some files of a pattern are missing, or one is of a kind that has to be read with jumps.
    """
    if str(path).startswith(HUB_PREFIX) or os.path.isdir(path):
        return []
    found = [file for file in data_files(path) if file.exists() and not stat.S_ISREG(file.stat().st_mode)]
    for file in found:
        if file.suffix.lower() in NEEDS_JUMPS:
            message = f"a pipe cannot be read as {file.suffix}, which needs jumps. Feed JSON lines, CSV or TSV."
            raise DataError(file, message)
    return found


def data_files(path: Path | str) -> list[Path]:
    """Return the files that a source is made of: itself, what its pattern matches, or the shards in a folder.

    Raises:
        DataError: there is none, or some of a brace pattern are missing.
    """
    name = str(path)
    if os.path.isdir(name):
        return _shards_of(Path(name))
    if os.path.exists(name) or not glob.has_magic(name.replace("{", "*")):
        return [Path(name)]
    found: list[str] = []
    names = _expanded(name) if "{" in name else [name]
    for each in names:
        found += sorted(glob.glob(each, recursive=True)) if glob.has_magic(each) else [each]
    missing = [each for each in found if not os.path.exists(each)]
    if missing:
        here = os.path.abspath(missing[0])
        raise DataError(path, f"{len(missing)} of {len(found)} files are missing, such as {here}. Mend the pattern.")
    if not found:
        raise DataError(path, f"no file matches (looked at {os.path.abspath(name)}). Mend the pattern.")
    return [Path(each) for each in found]


def _expanded(name: str) -> list[str]:
    braceexpand = import_extra("braceexpand", name)
    try:
        return list(braceexpand.braceexpand(name, escape=False))
    except ValueError as error:
        raise DataError(name, f"the braces do not pair: {error}. Write them as {{000..009}}.") from None


def _shards_of(folder: Path) -> list[Path]:
    names = sorted(entry.name for entry in os.scandir(folder) if not entry.name.startswith("."))
    kinds = [ending for ending in SHARDS if any(name.lower().endswith(ending) for name in names)]
    if len(kinds) == 1:
        return [folder / name for name in names if name.lower().endswith(kinds[0])]
    if kinds:
        raise DataError(folder, "holds parquet files and tar files. Name one kind by a pattern, such as FOLDER/*.tar.")
    message = "this is a folder without parquet files, tar files or a saved data set. Name a file, such as a .json."
    raise DataError(folder, message)


def _read_file(path: Path) -> Iterator[Record]:
    name = path.name.lower()
    for ending, problem in REFUSED.items():
        if name.endswith(ending):
            raise DataError(path, problem)
    try:
        yield from READERS.get(path.suffix.lower(), read_json)(path)
    except FileNotFoundError:
        raise DataError(path, f"no such file (looked in {path.resolve().parent}). Mend the path.") from None
    except IsADirectoryError:
        raise DataError(path, "this is a folder. Name a file.") from None
    except PermissionError:
        raise DataError(path, "no permission to read it. Mend its mode, or name another file.") from None
    except OSError as error:
        raise DataError(f"{path!s:.200}", f"cannot be opened: {error.strerror or error}. Mend the path.") from None
