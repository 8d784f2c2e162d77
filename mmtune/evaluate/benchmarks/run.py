"""One evaluation from beginning to end: read, draw, ask what is not answered yet, score, report."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmtune.build import load_run
from mmtune.chat.generate import Decoding
from mmtune.errors import DataError, Interrupted
from mmtune.evaluate.asking import Asker
from mmtune.evaluate.benchmarks.answers import AnswerStore
from mmtune.evaluate.benchmarks.asking import Answerer, Generator, Predictor
from mmtune.evaluate.benchmarks.benchmark import Benchmark, Item
from mmtune.evaluate.benchmarks.chosen import draw, find_images, prompt_of, questions_hash
from mmtune.evaluate.benchmarks.report import REPORT_FILE, build_report, write_report
from mmtune.evaluate.benchmarks.table import BENCHMARKS
from mmtune.hashing import file_hash
from mmtune.lookup import lookup
from mmtune.models.device import choose_device
from mmtune.processes import num_processes, rank
from mmtune.progress import Bars
from mmtune.run_folder import CHECKPOINT_PREFIX, MANIFEST_FILE, read_config, require_complete
from mmtune.schema import trained_system
from mmtune.training.ranks import agreed, join

log = logging.getLogger(__name__)
PERPLEXITY = "perplexity"
NUM_SHOWN_MISSING = 20


@dataclass(frozen=True)
class Evaluation:
    """What is to be evaluated, and how.

    Attributes:
        run: a run folder or a checkpoint.
        name: of the benchmark, a key of `BENCHMARKS`.
        data: its folder, or a file of it.
        output: the folder for answers and report; None makes one of the names.
        image_folder: where the images are; None takes the benchmark's own place.
        limit: so many questions drawn at random; None asks all.
        seed: of the draw.
        batch_size: questions answered together.
        max_new_tokens: the longest answer.
        instruction: what stands behind each question; None takes the benchmark's own.
        overwrite: drop answers that are there.
    """

    run: Path
    name: str
    data: Path
    output: Path | None = None
    image_folder: Path | None = None
    limit: int | None = None
    seed: int = 0
    batch_size: int = 32
    max_new_tokens: int = 128
    instruction: str | None = None
    overwrite: bool = False

    @property
    def folder(self) -> Path:
        """The folder for answers and report."""
        if self.output is not None:
            return self.output
        run = self.run.resolve()
        name = f"{run.parent.name}-{run.name}" if run.name.startswith(CHECKPOINT_PREFIX) else run.name
        return Path("runs") / "eval" / name / self.name


def evaluate(wanted: Evaluation) -> dict[str, Any] | None:
    """Ask a run all questions of a benchmark and return the report, which is written too.

    Answers that are there already are kept. Under torchrun each process answers its share, and the first one scores;
    the others return None.

    Raises:
        ConfigError: an unknown benchmark, or answers of other inputs in the folder.
        DataError: the benchmark's files are missing or malformed.
        CheckpointError: the run is incomplete.
        Interrupted: it was cut off; the same call goes on.
    """
    join("auto")
    with agreed():
        benchmark = lookup(BENCHMARKS, wanted.name, "--benchmark")
        require_complete(wanted.run)
        every = benchmark.read(wanted.data)
        read = draw(every, wanted.limit, wanted.seed)
        inputs = _inputs(wanted, benchmark, read)
        items, missing = find_images(benchmark, read, wanted.data, wanted.image_folder)
        store = AnswerStore(wanted.folder, rank())
        if rank() == 0:
            store.prepare(inputs, overwrite=wanted.overwrite)
            _say_missing(missing, len(read))
    with agreed():
        store.read()
        _answer(wanted, benchmark, items, store)
    if rank():
        return None
    store.read()
    report = _scored(wanted, benchmark, read, store, inputs)
    report |= {"num_in_benchmark": len(every), "missing": missing}
    write_report(report, wanted.folder)
    return report


def _inputs(wanted: Evaluation, benchmark: Benchmark, items: list[Item]) -> dict[str, Any]:
    """All that decides what the answers are, but for the images' pixels and the machine."""
    return {
        "benchmark": wanted.name,
        "run": file_hash(wanted.run / MANIFEST_FILE),
        "questions": questions_hash(items),
        "instruction": _instruction(wanted, benchmark),
        "max_new_tokens": wanted.max_new_tokens,
    }


def _instruction(wanted: Evaluation, benchmark: Benchmark) -> str:
    return benchmark.instruction if wanted.instruction is None else wanted.instruction


def _say_missing(missing: list[str], num_items: int) -> None:
    for line in missing[:NUM_SHOWN_MISSING]:
        log.error("%s", line)
    if missing:
        message = "%d of %d questions are not asked: their images are missing; %s lists all"
        log.error(message, len(missing), num_items, REPORT_FILE)


def _answer(wanted: Evaluation, benchmark: Benchmark, items: list[Item], store: AnswerStore) -> None:
    """Answer this process's share of what is not answered yet, every n-th question of all."""
    share = items[rank() :: num_processes()]
    left = [item for item in share if item.id not in store.answers]
    if len(left) < len(share):
        log.info("%d of %d questions are answered already", len(share) - len(left), len(share))
    if not left:
        return
    answerer, num_done = _answerer(wanted, benchmark), len(share) - len(left)
    instruction = _instruction(wanted, benchmark)
    try:
        with Bars() as progress:
            for answered in answerer.answers(left):
                store.append(_entry(item, answer, instruction) for item, answer in answered)
                num_done += len(answered)
                progress("questions", num_done, len(share))
    except KeyboardInterrupt:
        message = f"interrupted: {num_done} of {len(share)} questions are answered. The same command goes on."
        raise Interrupted(message, 130) from None


def _answerer(wanted: Evaluation, benchmark: Benchmark) -> Answerer:
    config, parts = read_config(wanted.run), load_run(wanted.run, device=choose_device())
    if wanted.name == PERPLEXITY:
        return Predictor(parts, config.data.max_length, wanted.batch_size)
    decoding = Decoding(max_new_tokens=wanted.max_new_tokens)
    asker = Asker(parts, decoding, wanted.batch_size, trained_system(config))
    return Generator(asker, _instruction(wanted, benchmark))


def _entry(item: Item, answer: Any, instruction: str) -> dict[str, Any]:
    entry: dict[str, Any] = {"id": item.id, "group": item.group, "answer": answer}
    if isinstance(answer, str):
        entry |= {"reference": list(item.reference), "prompt": prompt_of(item, instruction)}
    return entry


def _scored(
    wanted: Evaluation, benchmark: Benchmark, read: list[Item], store: AnswerStore, inputs: dict[str, Any]
) -> dict[str, Any]:
    items = [item for item in read if item.id in store.answers]
    if not items:
        raise DataError(wanted.data, "no question could be asked. See the lines above.")
    answers = [store.answers[item.id] for item in items]
    credits = [benchmark.credit(item, answer) for item, answer in zip(items, answers, strict=True)]
    store.rewrite(
        _entry(item, answer, inputs["instruction"]) | {"credit": credit}
        for item, answer, credit in zip(items, answers, credits, strict=True)
    )
    scores = benchmark.score(items, answers)
    report = build_report(benchmark, scores, inputs, num_read=len(read), num_answered=len(items))
    facts = {"folder": str(wanted.run), "data": str(wanted.data), "limit": wanted.limit, "seed": wanted.seed}
    return report | facts
