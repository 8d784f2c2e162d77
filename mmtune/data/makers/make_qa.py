"""Let a model behind an OpenAI-compatible endpoint write LLaVA records about one's own images.

Threads ask, the calling thread writes. What is asked and how answers are read: `qa_prompts`. HTTP: `endpoint`. The
file and how it goes on after an interruption: `qa_file`.
"""

import base64
import io
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmtune.data.formats import parse_record
from mmtune.data.makers.endpoint import Endpoint, EndpointError
from mmtune.data.makers.qa_file import Job, failure_line, read_finished, records_of, to_text
from mmtune.data.makers.qa_prompts import NUM_PAIRS, build_messages, parse_answer
from mmtune.data.makers.record_files import IMAGE_SUFFIXES, cannot_be_written
from mmtune.data.record import Record
from mmtune.errors import ConfigError, DataError

JPEG_QUALITY = 90
MAX_BACKOFF_S = 60.0


@dataclass(frozen=True)
class QaSettings:
    """What to ask, and how patiently.

    Attributes:
        styles: of `STYLES`; each is one request for each image.
        language: of `LANGUAGES`.
        num_pairs: question-answer pairs of a request; None takes the default of the style.
        max_side: images are made smaller until no side is longer, in pixels.
        retries: how often a request is repeated after a failure.
        backoff_s: seconds before the first repetition; each next one waits twice as long, at most a minute.
        concurrency: requests at one time.
    """

    styles: tuple[str, ...] = ("conversation",)
    language: str = "en"
    num_pairs: int | None = None
    max_side: int = 1024
    retries: int = 5
    backoff_s: float = 1.0
    concurrency: int = 4

    def pairs_of(self, style: str) -> int:
        """Return how many pairs a request of this style asks for."""
        return self.num_pairs or NUM_PAIRS[style]


@dataclass
class QaCounts:
    """What became of the jobs: `num_jobs` = done before + made + failed.

    Attributes:
        num_images: images that are asked about.
        num_jobs: images times styles.
        num_done_before: jobs that the file held already.
        num_made: jobs that succeeded now.
        num_failed: jobs that did not, listed in the file of failures.
        num_records: records written now.
        num_dropped: lines of unfinished jobs that were removed from the file first.
    """

    num_images: int
    num_jobs: int
    num_done_before: int = 0
    num_made: int = 0
    num_failed: int = 0
    num_records: int = 0
    num_dropped: int = 0


def find_images(folder: Path, limit: int | None = None) -> list[str]:
    """Return the paths of the images under a folder, relative to it, sorted, the first `limit` of them.

    Raises:
        DataError: the folder is missing or holds no image.
    """
    if not folder.is_dir():
        raise DataError(folder, f"no such folder (resolved to {folder.resolve()}). Mend --image-folder.")
    files = (path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    images = sorted(path.relative_to(folder).as_posix() for path in files)
    if not images:
        suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
        raise DataError(folder, f"holds no image. Known suffixes: {suffixes}. Mend --image-folder.")
    return images[:limit]


def image_uri(path: Path, max_side: int) -> str:
    """Return an image as a JPEG in a data URI, as seen (EXIF), with no side longer than `max_side` pixels.

    Raises:
        DataError: it cannot be read as an image.
    """
    from mmtune.data.image_files import open_image  # numpy and Pillow: not needed for --help

    image = open_image(path)
    image.thumbnail((max_side, max_side))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def first_request(image_folder: Path, images: list[str], endpoint: Endpoint, settings: QaSettings) -> dict[str, Any]:
    """Return the body of the first request, with the size of the image in place of its bytes."""
    style = settings.styles[0]
    uri = image_uri(image_folder / images[0], settings.max_side)
    head, _, data = uri.partition(",")
    shown = f"{head},<{len(data)} characters: {images[0]}>"
    return endpoint.body(build_messages(style, settings.language, settings.pairs_of(style), shown))


def failures_path(output: Path) -> Path:
    """Return where failures are listed: `qa.failed.jsonl` beside `qa.jsonl`."""
    return output.with_name(output.stem + ".failed.jsonl")


def make_qa(
    image_folder: Path,
    images: list[str],
    output: Path,
    endpoint: Endpoint,
    settings: QaSettings,
    report: Callable[[Job, str], None],
) -> QaCounts:
    """Ask about every image and append the records to a file as they come; jobs that it holds already are not asked.

    Args:
        image_folder: what `images` are relative to.
        images: as `find_images` returns them.
        output: JSON lines.
        endpoint: who is asked.
        settings: what is asked.
        report: called for each finished job with the reason of its failure, or an empty text.

    Raises:
        ConfigError: the endpoint refuses all requests or cannot be reached. What was made before is in the file.
        DataError: the file cannot be read or written, or is not one of `make_qa`.
    """
    jobs = [Job(image, style, settings.language) for image in images for style in settings.styles]
    finished = read_finished(output)
    todo = [job for job in jobs if job not in finished.jobs]
    counts = QaCounts(len(images), len(jobs), len(jobs) - len(todo), num_dropped=finished.num_dropped)
    crew = _Crew(image_folder, endpoint, settings, todo)
    try:
        failures_path(output).unlink(missing_ok=True)
        with output.open("a", encoding="utf-8", newline="\n") as file, crew:
            for _ in todo:
                job, outcome = crew.results.get()
                report(job, _keep(job, outcome, file, counts, endpoint, output))
    except OSError as error:
        raise cannot_be_written(output, error) from None
    return counts


def _keep(job: Job, outcome: Any, file: Any, counts: QaCounts, endpoint: Endpoint, output: Path) -> str:
    """Write what came of a job; returns the reason where it failed."""
    if isinstance(outcome, list):
        file.write(to_text(outcome))
        file.flush()
        counts.num_made += 1
        counts.num_records += len(outcome)
        return ""
    if isinstance(outcome, EndpointError) and outcome.is_final:
        raise ConfigError(endpoint.base_url, f"{outcome.reason.rstrip('.')}. Then run the same command again.")
    if not isinstance(outcome, (EndpointError, DataError)):
        raise outcome  # a bug of our own
    counts.num_failed += 1
    reason = outcome.reason if isinstance(outcome, EndpointError) else str(outcome)
    with failures_path(output).open("a", encoding="utf-8") as failures:
        failures.write(failure_line(job, reason))
    return reason


class _Crew:
    """Threads that ask, and the queue of what they got: (job, records or the exception).

    They are daemons: after Ctrl-C nobody waits for answers that are under way.
    """

    def __init__(self, image_folder: Path, endpoint: Endpoint, settings: QaSettings, todo: list[Job]):
        self.image_folder, self.endpoint, self.settings = image_folder, endpoint, settings
        self.results: queue.Queue[tuple[Job, Any]] = queue.Queue()
        self.todo: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self.stop = threading.Event()
        for job in todo:
            self.todo.put(job)

    def __enter__(self) -> None:
        for _ in range(min(self.settings.concurrency, self.todo.qsize())):
            threading.Thread(target=self._work, daemon=True).start()

    def __exit__(self, *_error: object) -> None:
        self.stop.set()

    def _work(self) -> None:
        while not self.stop.is_set():
            try:
                job = self.todo.get_nowait()
            except queue.Empty:
                return
            try:
                outcome: Any = self._ask(job)
            except Exception as error:
                outcome = error
            self.results.put((job, outcome))

    def _ask(self, job: Job) -> list[dict[str, Any]]:
        """Ask until the answer is usable or the patience is at its end."""
        settings, count = self.settings, self.settings.pairs_of(job.style)
        uri = image_uri(self.image_folder / job.image, settings.max_side)
        messages = build_messages(job.style, job.language, count, uri)
        for attempt in range(settings.retries + 1):
            try:
                return self._checked_records(job, self.endpoint.ask(messages), count)
            except EndpointError as error:
                problem = error
            except (ValueError, DataError) as error:
                problem = EndpointError(error.message if isinstance(error, DataError) else str(error))
                problem.is_retryable = True
            if not problem.is_retryable:
                break
            wait_s = max(min(settings.backoff_s * 2**attempt, MAX_BACKOFF_S), problem.wait_s)
            if attempt < settings.retries and self.stop.wait(wait_s):
                break
        raise EndpointError(f"{problem.reason} (attempt {attempt + 1})", is_final=problem.is_final)

    def _checked_records(self, job: Job, answer: str, count: int) -> list[dict[str, Any]]:
        records = records_of(job, parse_answer(answer, count), self.endpoint.model)
        for record in records:
            parse_record(Record(record, Path(job.image), 1), "llava")
        return records
