"""The same questions to several models, with their images and with wrong ones. What answers are worth: `scores.py`."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from mmtune.build import Parts, build_parts, load_run
from mmtune.chat.generate import Decoding
from mmtune.errors import ConfigError
from mmtune.evaluate.asking import Asker
from mmtune.evaluate.questions import Question, shuffled_images, spread
from mmtune.models.device import choose_device
from mmtune.run_folder import read_config, require_complete
from mmtune.schema import trained_system

BASE = "base"
CONTROLS = ("blank", "shuffled")


@dataclass(frozen=True)
class Answer:
    """One model's answer to one question.

    Attributes:
        model: name of the model.
        condition: `image`, `blank` (an image of one colour), `shuffled` (another question's image) or `none`.
        text: what it said.
        correct: None where the question has no reference.
    """

    model: str
    condition: str
    text: str
    correct: bool | None


@dataclass(frozen=True)
class Comparison:
    """Answers to each question, in the order of the questions."""

    questions: list[Question]
    models: list[dict[str, str]]
    answers: list[list[Answer]] = field(default_factory=list)
    seconds: float = 0.0


def compare_models(
    runs: Sequence[Path | str],
    questions: list[Question],
    *,
    controls: Iterable[str] = (),
    num_control_questions: int | None = None,
    decoding: Decoding | None = None,
    batch_size: int = 32,
    seed: int = 0,
    device: torch.device | None = None,
) -> Comparison:
    """Ask every model every question, with greedy decoding unless told otherwise.

    Args:
        runs: run folders from before to after; `base` stands for the language model of the last one, untrained and
            asked without image tokens. Each is asked with the system message that its sources gave, `base` with that
            of the last run.
        questions: with or without images and references.
        controls: of `CONTROLS`: the last model is asked again with these images instead of the right one.
        num_control_questions: ask the controls on so many questions, spread evenly over all; None takes all.
        decoding: how answers are chosen.
        batch_size: prompts answered together.
        seed: of the shuffled images.
        device: None takes a GPU where there is one.

    Raises:
        ConfigError: an unknown control, fewer than one question for the controls, or `base` as the last model.
    """
    controls, names = tuple(controls), [str(run) for run in runs]
    for control in controls:
        if control not in CONTROLS:
            raise ConfigError("controls", f"unknown control '{control}'. Known: {', '.join(CONTROLS)}.")
    if num_control_questions is not None and num_control_questions < 1:
        raise ConfigError("num_control_questions", f"must be 1 or more (got {num_control_questions}). Mend it.")
    if names[-1] == BASE:
        raise ConfigError(BASE, "it stands for the language model of the last run: name a run folder after it.")
    for name in names:
        if name != BASE:
            require_complete(Path(name))
    started = time.monotonic()
    shuffled = shuffled_images(questions, seed)
    answers: list[list[Answer]] = [[] for _ in questions]
    models = []
    for number, name in enumerate(names):
        parts = _load(name, names[-1], device or choose_device())
        system = trained_system(read_config(Path(names[-1] if name == BASE else name)))
        asker = Asker(parts, decoding or Decoding(max_new_tokens=64), batch_size, system)
        label = describe_model(name)
        models.append(label)
        conditions = ("image", *(controls if number == len(names) - 1 else ())) if parts.model.vision else ("none",)
        for condition in conditions:
            numbers = spread(range(len(questions)), num_control_questions if condition in CONTROLS else None)
            _add_answers(answers, questions, numbers, label["name"], condition, asker, shuffled)
    return Comparison(questions, models, answers, round(time.monotonic() - started, 1))


def _add_answers(
    answers: list[list[Answer]],
    questions: list[Question],
    numbers: Iterable[int],
    model: str,
    condition: str,
    asker: "Asker",
    shuffled: list[Any],
) -> None:
    """Ask questions under one condition; controls only those that have an image, or another one to swap in."""
    chosen, images = [], []
    for number in numbers:
        question, is_control = questions[number], condition in CONTROLS
        if not is_control or (question.images and (condition == "blank" or shuffled[number] is not None)):
            chosen.append(number)
            options = {"image": question.images, "none": (), "blank": (None,) * len(question.images)}
            images.append(options.get(condition, shuffled[number]))
    texts = asker.ask([questions[number].question for number in chosen], images)
    for number, text in zip(chosen, texts, strict=True):
        question = questions[number]
        shown = condition if question.images else "none"
        answers[number].append(Answer(model, shown, text, question.is_right(text)))


def _load(name: str, last: str, device: torch.device) -> Parts:
    if name != BASE:
        return load_run(name, device=device)
    config = read_config(Path(last)).model
    config.vision = config.projector = config.adapter = None
    config.stack_on = []
    config.llm.tune = "frozen"
    parts = build_parts(config, device)
    parts.model.eval()
    return parts


def describe_model(name: str) -> dict[str, str]:
    """Return name, label and note of a model for tables and pages."""
    if name == BASE:
        return {
            "name": BASE,
            "label": "Base",
            "note": "the untouched language model, asked without image tokens",
        }
    config = read_config(Path(name)).model
    trained = [
        part for part in ("vision", "projector") if getattr(config, part) and getattr(config, part).tune != "frozen"
    ]
    if config.adapter:
        trained.append(config.adapter.get("kind", "lora"))
    elif config.llm.tune != "frozen":
        trained.append("llm" if config.llm.tune == "full" else f"llm {config.llm.tune}")
    return {
        "name": Path(name).name,
        "label": Path(name).name,
        "note": f"trained: {' + '.join(trained)} ({name})",
    }
