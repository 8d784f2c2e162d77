"""Which content a data source has, as the cache of prepared data names it."""

from pathlib import Path

from mmtune.data.arrow_records import HUB_PREFIX, hub_fingerprint, is_saved_dataset
from mmtune.data.records import SHARDS, data_files
from mmtune.errors import DataError
from mmtune.hashing import file_hash, value_hash


def source_key(path: str, split: str | None) -> str:
    """Return a text that changes when the content of a source does.

    One JSON file, table or the like is hashed whole, so that it may move and be touched. Shards may be hundreds of
    gigabytes and are images for the most part: their places, sizes and times stand for them.

    Raises:
        DataError: the source is missing or cannot be read.
    """
    if path.startswith(HUB_PREFIX):
        return hub_fingerprint(path, split)
    if is_saved_dataset(Path(path)):
        return value_hash([split, *map(_stamp, sorted(Path(path).rglob("*.*")))])
    files = data_files(path)
    if len(files) == 1 and files[0].suffix.lower() not in SHARDS and files[0].is_file():
        try:
            return file_hash(files[0])
        except PermissionError:
            raise DataError(path, "no permission to read it. Mend its mode, or name another file.") from None
    return value_hash([_stamp(file) for file in files])


def _stamp(file: Path) -> list[str | int]:
    try:
        status = file.stat()
    except OSError:
        return [str(file.resolve()), 0, 0]  # the reader says what is wrong with it
    return [str(file.resolve()), status.st_size, status.st_mtime_ns]
