"""Records of parquet files, of folders that `datasets` saved and of hub data sets. Knows no format of conversation.

Rows are read batch by batch as Arrow holds them, so that no image is decoded: it stays a dict of `bytes` and `path`.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mmtune.data.extras import import_extra
from mmtune.data.record import Record, cell_value
from mmtune.errors import DataError
from mmtune.lookup import nearest

HUB_PREFIX = "hub:"
BATCH_BYTES = 16 << 20
MAX_BATCH_ROWS = 1024
STREAM_BATCH_ROWS = 16


def read_parquet(path: Path) -> Iterator[Record]:
    """Yield the rows of a parquet file as dicts by column name, from row 1.

    Raises:
        DataError: pyarrow is missing, or the file is broken or has no rows.
        OSError: the file cannot be opened.
    """
    parquet = import_extra("pyarrow.parquet", path, package="pyarrow")
    arrow = import_extra("pyarrow", path)
    number = 0
    with path.open("rb") as opened:
        try:
            file = parquet.ParquetFile(opened, pre_buffer=False, buffer_size=1 << 20)
            groups = (file.metadata.row_group(index) for index in range(file.num_row_groups))
            num_bytes = sum(group.total_byte_size for group in groups)
            batch_rows = _batch_rows(num_bytes, file.metadata.num_rows)
            for record in _records(file.iter_batches(batch_size=batch_rows), path):
                number = record.line
                yield record
        except (arrow.ArrowException, OSError) as error:
            place = f"{path}:{number + 1}" if number else path
            raise DataError(place, f"cannot be read as parquet: {error!s:.200}. Copy the file again.") from None
    if not number:
        raise DataError(path, "the table has no rows. It needs at least one record.")


def is_saved_dataset(path: Path) -> bool:
    """Whether a folder is one that `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote."""
    has = {name: os.path.isfile(path / name) for name in ("dataset_info.json", "state.json", "dataset_dict.json")}
    return has["dataset_dict.json"] or (has["dataset_info.json"] and has["state.json"])


def read_saved_dataset(folder: Path, split: str | None = None) -> Iterator[Record]:
    """Yield the rows of a folder that `save_to_disk` wrote, from row 1.

    Args:
        folder: the folder; of one with splits, the records are placed in the folder of their split.
        split: which split; None takes `train` where there are splits.

    Raises:
        DataError: `datasets` is missing, or there is no such split, or the folder is broken.
    """
    datasets = import_extra("datasets", folder)
    if not (folder / "dataset_dict.json").is_file():
        if split is not None:
            raise DataError(folder, f"has no splits (got '{split}'). Leave the split out.")
        part = folder
    else:
        part = folder / (split or "train")
        names = sorted(path.parent.name for path in folder.glob("*/state.json"))
        if part.name not in names:
            message = f"has no split '{part.name}'.{nearest(part.name, names)} Its splits are {', '.join(names)}."
            raise DataError(folder, message)
    try:
        dataset = datasets.load_from_disk(str(part))
    except (OSError, ValueError, LookupError, TypeError) as error:
        message = f"cannot be read as a saved data set: {error!s:.200}. It is empty or broken: save it again."
        raise DataError(part, message) from None
    yield from _dataset_records(dataset, part)


def read_hub_dataset(name: str, split: str | None = None) -> Iterator[Record]:
    """Yield the rows of a data set that `datasets.load_dataset` fetches, from row 1.

    This is the one source that may touch the network, and only because its prefix asks for it.

    Args:
        name: `hub:OWNER/NAME`, or `hub:OWNER/NAME/CONFIG` where the data set has several configs.
        split: what `load_dataset` takes as split; None takes `train`.

    Raises:
        DataError: `datasets` is missing, or the data set cannot be loaded.
    """
    yield from _dataset_records(_load_hub_dataset(name, split), Path(name))


def read_hub_stream(name: str, split: str | None = None) -> Iterator[Record]:
    """Yield the rows that `read_hub_dataset` yields, fetched while they are read: nothing is kept on the disk.

    Raises:
        DataError: as `read_hub_dataset`, or the stream breaks off; the message holds the last row.
    """
    dataset, number = _load_hub_dataset(name, split, streaming=True), 0
    try:
        for record in _records(dataset.with_format("arrow").iter(STREAM_BATCH_ROWS), Path(name)):
            number = record.line
            yield record
    except Exception as error:  # as for loading
        message = f"the stream broke off soon after this row: {_first_line(error)}. Check the network, then resume."
        raise DataError(f"{name}:{number}", message) from None
    if not number:
        raise DataError(name, "the data set has no rows. It needs at least one record.")


def hub_fingerprint(name: str, split: str | None = None) -> str:
    """Return what `datasets` knows the content of a hub data set by; arguments and errors as `read_hub_dataset`."""
    return _load_hub_dataset(name, split)._fingerprint


def _load_hub_dataset(name: str, split: str | None, *, streaming: bool = False) -> Any:
    datasets = import_extra("datasets", name)
    owner_name, config = name.removeprefix(HUB_PREFIX).strip("/"), None
    if owner_name.count("/") == 2:
        owner_name, config = owner_name.rsplit("/", 1)
    try:
        return datasets.load_dataset(owner_name, config, split=split or "train", streaming=streaming)
    except Exception as error:  # the network, the hub and every builder raise their own kinds
        reason = _first_line(error)
        raise DataError(
            name, f"cannot be loaded: {reason}. Mend the name or the split, or check the network."
        ) from None


def _first_line(error: Exception) -> str:
    return (str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__)[:300]


def _dataset_records(dataset: Any, path: Path) -> Iterator[Record]:
    if not len(dataset):
        raise DataError(path, "the data set has no rows. It needs at least one record.")
    batch_rows = _batch_rows(dataset.data.nbytes, len(dataset.data))
    yield from _records(dataset.with_format("arrow").iter(batch_rows), path)


def _batch_rows(num_bytes: int, num_rows: int) -> int:
    """How many rows make a batch of some `BATCH_BYTES`."""
    return max(1, min(MAX_BATCH_ROWS, BATCH_BYTES * num_rows // max(num_bytes, 1)))


def _records(batches: Iterable[Any], path: Path) -> Iterator[Record]:
    number = 0
    for batch in batches:
        plain = [field.name for field in batch.schema if not field.type.num_fields]  # the rest is lists and structs
        for row in _rows(batch):
            number += 1
            if row is None:
                yield Record(None, path, number, "a text holds bytes that are not UTF-8. Write the row again.")
                continue
            for name in plain:
                row[name] = cell_value(row[name])
            yield Record(row, path, number)


def _rows(batch: Any) -> list[dict[str, Any] | None]:
    """The rows of a batch as dicts; None for one whose text cannot be decoded."""
    try:
        return batch.to_pylist()
    except UnicodeDecodeError:
        if len(batch) == 1:
            return [None]
        return [row for index in range(len(batch)) for row in _rows(batch.slice(index, 1))]
