"""The file that `make_qa` fills: which jobs are in it, and its mending after an interruption.

A job is one image in one style and language. Its records are appended in one write and carry
`"source": {"style", "language", "model", "part", "parts"}`; a job is done when all its parts are there.
"""

from pathlib import Path
from typing import Any, NamedTuple

from mmtune.data.makers.qa_prompts import Pair
from mmtune.data.makers.record_files import cannot_be_written
from mmtune.data.record import to_line
from mmtune.data.records import read_records
from mmtune.errors import DataError


class Job(NamedTuple):
    """One request: an image (its path under the image folder), a style and a language."""

    image: str
    style: str
    language: str


class Finished(NamedTuple):
    """What a file holds already.

    Attributes:
        jobs: those that are whole.
        num_dropped: lines that were removed, since their jobs were not whole.
    """

    jobs: set[Job]
    num_dropped: int


def records_of(job: Job, pairs: list[Pair], model: str) -> list[dict[str, Any]]:
    """Return the LLaVA records of a job: one dialogue for a conversation, else one record for each pair."""
    dialogues = [pairs] if job.style == "conversation" else [[pair] for pair in pairs]
    records = []
    for part, dialogue in enumerate(dialogues, 1):
        turns = []
        for number, pair in enumerate(dialogue):
            mark = "<image>\n" if number == 0 else ""
            turns += [{"from": "human", "value": mark + pair.question}, {"from": "gpt", "value": pair.answer}]
        source = {"style": job.style, "language": job.language, "model": model, "part": part, "parts": len(dialogues)}
        name = f"{job.image}#{job.style}-{job.language}-{part}"
        records.append({"id": name, "image": job.image, "conversations": turns, "source": source})
    return records


def read_finished(path: Path) -> Finished:
    """Return the whole jobs of a file, and remove what an interruption left: a partial last line, parts of a job.

    Raises:
        DataError: the file is not one that `make_qa` wrote, or cannot be mended.
    """
    if not path.exists():
        return Finished(set(), 0)
    try:
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            _replace(path, whole)
    except OSError as error:
        raise cannot_be_written(path, error) from None
    parts: dict[Job, set[int]] = {}
    jobs: list[tuple[Job, int]] = []
    for record in read_records(path) if whole.strip() else ():
        if record.problem:
            raise DataError(record.place, record.problem)
        job, part, num_parts = _job_of(record.value, record.place)
        parts.setdefault(job, set()).add(part)
        jobs.append((job, num_parts))
    done = {job for job, num_parts in jobs if parts[job] == set(range(1, num_parts + 1))}
    num_torn = sum(job not in done for job, _ in jobs)
    if num_torn:
        lines = whole.splitlines(keepends=True)
        kept = [line for line, (job, _) in zip(filter(bytes.strip, lines), jobs, strict=True) if job in done]
        _replace(path, b"".join(kept))
    return Finished(done, num_torn + (whole != content))


def _job_of(value: Any, place: str) -> tuple[Job, int, int]:
    try:
        source = value["source"]
        return Job(value["image"], source["style"], source["language"]), source["part"], source["parts"]
    except (KeyError, TypeError):
        raise DataError(place, "is no record of make_qa, so it cannot go on. Name another --output.") from None


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    partial.replace(path)


def to_text(records: list[dict[str, Any]]) -> str:
    """Return records as JSON lines."""
    return "".join(to_line(record) + "\n" for record in records)


def failure_line(job: Job, reason: str) -> str:
    """Return the line of the file of failures."""
    return to_line({**job._asdict(), "reason": reason}) + "\n"
