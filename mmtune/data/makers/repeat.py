"""Write every record of a file several times, as the course does with its six records (x 200)."""

from pathlib import Path
from typing import NamedTuple

from mmtune.data.makers.record_files import RecordWriter, object_of
from mmtune.data.records import read_records


class Repeated(NamedTuple):
    """How many records came in and went out."""

    num_read: int
    num_written: int


def repeat_records(source: Path | str, output: Path | str, times: int, *, overwrite: bool = False) -> Repeated:
    """Write all records in order, then all of them again, `times` in all. Bounded memory: the file is read each time.

    Args:
        source: a JSON array or JSON lines.
        output: `.json` or `.jsonl`.
        times: how often each record stands in the output, at least 1.
        overwrite: replace `output` where it exists.

    Raises:
        DataError: the input cannot be read, or the output cannot be written or exists.
    """
    with RecordWriter(output, source=source, overwrite=overwrite) as writer:
        for _ in range(times):
            for record in read_records(source):
                writer.write(object_of(record))
    return Repeated(writer.num_records // times, writer.num_records)
