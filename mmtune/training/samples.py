"""Questions that a model answers while it trains: asked at the start, every N steps and at the end."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from mmtune.build import Parts
from mmtune.chat.generate import Decoding
from mmtune.chat.session import ChatSession
from mmtune.conversation import ImageSlot
from mmtune.data.image_check import check_image
from mmtune.durable import written_beside
from mmtune.errors import ConfigError
from mmtune.markdown import image, inline, table
from mmtune.plain_text import shortened
from mmtune.processes import rank
from mmtune.schema import Config, SampleConfig
from mmtune.schema_evaluation import Question, questions_of
from mmtune.training.callbacks import drop_after, read_log
from mmtune.training.interruption import Interruption
from mmtune.training.meter import StepMeter
from mmtune.training.ranks import from_rank_0, wait_for_all
from mmtune.training.undisturbed import undisturbed

log = logging.getLogger(__name__)
SAMPLES_FILE = "samples.jsonl"
PAGE_FILE = "samples.md"
SHOWN_CHARACTERS = 60
BEFORE_ALL = -1
"""A step before the first: a run that starts anew asks anew, before step 1 too."""
HEADER = "# Sample answers\n\nGreedy answers to the questions of `sample`, asked while training.\n"


def require_samples(config: Config) -> None:
    """Check that the images of the sample questions can be opened.

    Raises:
        ConfigError: one cannot.
    """
    if config.sample is None:
        return
    for question, images in questions_of(config.sample):
        for path in images:
            reason = check_image(ImageSlot(path), decode=True)
            if reason is not None:
                place = "sample.images" if path in config.sample.images else f"sample.questions ({question:.40})"
                raise ConfigError(place, f"image {path}: {reason}")


def sample_callbacks(
    config: Config, parts: Parts, meter: StepMeter, first_step: int, interruption: Interruption
) -> list[TrainerCallback]:
    """Return what asks the questions of a config; nothing where it has none."""
    if config.sample is None:
        return []
    return [SampleAnswers(config.sample, parts, Path(config.train.output_dir), meter, first_step, interruption)]


class SampleAnswers(TrainerCallback):
    """Appends the answers to `samples.jsonl`, writes them as `samples.md` and says them in short.

    Training goes on as if nothing had been asked.

    Args:
        config: the section `sample`.
        parts: the model that trains.
        folder: the run folder.
        meter: whose figures leave the answers out.
        first_step: the step that a resumed run starts from; later answers of the interrupted run are dropped.
        interruption: of the run: one that a signal ends is not kept waiting by questions.
    """

    def __init__(
        self,
        config: SampleConfig,
        parts: Parts,
        folder: Path,
        meter: StepMeter,
        first_step: int,
        interruption: Interruption,
    ):
        self.config, self.parts, self.folder, self.meter = config, parts, folder, meter
        self.interruption = interruption
        self.questions = questions_of(config)
        self.path = folder / SAMPLES_FILE
        if rank() == 0:
            drop_after(self.path, first_step or BEFORE_ALL)
        self.entries = read_log(self.path)
        self.asked_at = {entry["step"] for entry in self.entries}

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ask before the first step."""
        if state.global_step == 0:
            self._ask(state)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ask every N steps."""
        if self.config.every_steps and state.global_step % self.config.every_steps == 0:
            self._ask(state)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ask after the last step; a run that a signal ends before it asks when it goes on."""
        if self.interruption.ending is None or state.global_step >= state.max_steps:
            self._ask(state)

    def _ask(self, state: Any) -> None:
        is_due = from_rank_0(lambda: state.global_step not in self.asked_at)
        if is_due and rank() == 0:
            self._write(state)
        elif is_due and self.parts.model.is_split:  # rank 0 cannot run the model without the others
            for _ in self._answers():
                pass
        wait_for_all()

    def _answers(self) -> Iterator[tuple[str, tuple[str, ...], str]]:
        """Yield each question with its images and the answer."""
        decoding = Decoding(max_new_tokens=self.config.max_new_tokens)
        with self.meter.aside(), undisturbed(self.parts.model):
            for question, images in self.questions:
                yield question, images, ChatSession(self.parts, decoding, self.config.system).ask(question, images)

    def _write(self, state: Any) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            for question, images, answer in self._answers():
                entry = {"step": state.global_step, "question": question, "images": list(images), "answer": answer}
                self.entries.append(entry)
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")
                log.info("step %d: %s -> %s", state.global_step, _short(question, images), _shown(answer))
        self.asked_at.add(state.global_step)
        with written_beside(self.folder / PAGE_FILE) as beside:
            beside.write_text(page(self.questions, self.entries, self.folder), encoding="utf-8")


def page(questions: list[Question], entries: list[dict[str, Any]], folder: Path) -> str:
    """Return `samples.md`: each question with its images and a table of the answers by step.

    Args:
        questions: in their order.
        entries: of `samples.jsonl`.
        folder: of the page, from which paths of images are written.
    """
    parts = [HEADER]
    for number, (question, images) in enumerate(questions, start=1):
        parts.append(f"## {number}. {inline(question)}\n")
        parts += [f"{image(path, folder)}\n" for path in images]
        answers = [entry for entry in entries if (entry["question"], tuple(entry["images"])) == (question, images)]
        rows = [(entry["step"], entry["answer"]) for entry in answers]
        parts.append(table(("step", "answer"), rows, right=[0]) + "\n")
    return "\n".join(parts)


def _short(question: str, images: tuple[str, ...]) -> str:
    return " ".join([*(Path(image).name for image in images), _shown(question)])


def _shown(text: str) -> str:
    return json.dumps(shortened(text, SHOWN_CHARACTERS), ensure_ascii=False)
