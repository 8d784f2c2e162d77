"""The same questions to several models, with their images and with wrong ones. What answers are worth: `scores.py`."""

import time
from collections import Counter
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
from mmtune.run_folder import read_config, read_system, require_complete

BASE = "base"
CONTROLS = ("blank", "shuffled")


@dataclass(frozen=True)
class Answer:
    """One model's answer to one question.

    Attributes:
        model: name of the model.
        condition: `image`, `blank` (an image of one colour), `shuffled` (another question's image) or `none`.
        text: what it said.
        correct: None where the question has no reference, or was not asked.
        problem: why the question could not be asked, "reason. mend."; empty where it was.
    """

    model: str
    condition: str
    text: str
    correct: bool | None
    problem: str = ""


@dataclass(frozen=True)
class Comparison:
    """Answers to each question, in the order of the questions.

    Attributes:
        questions: what was asked.
        models: `name`, `label` and `note` of each, from before to after.
        answers: of each question: one a model in their order, then those of the controls.
        seconds: how long it took.
        controls: with which wrong images the last model was to be asked, too.
    """

    questions: list[Question]
    models: list[dict[str, str]]
    answers: list[list[Answer]] = field(default_factory=list)
    seconds: float = 0.0
    controls: tuple[str, ...] = ()


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
        runs: run folders from before to after, each once; `base` stands for the language model of the last one,
            untrained and asked without image tokens. Each is asked with the system message that its sources gave,
            `base` with that of the last run.
        questions: with or without images and references.
        controls: of `CONTROLS`: the last model is asked again with these images instead of the right one.
        num_control_questions: ask the controls on so many questions, spread evenly over all; None takes all.
        decoding: how answers are chosen.
        batch_size: prompts answered together.
        seed: of the shuffled images.
        device: None takes a GPU where there is one.

    Raises:
        ConfigError: an unknown control, fewer than one question for the controls, no question, a model that is named
            twice, or `base` as the last one.
    """
    controls, names = tuple(controls), [str(run) for run in runs]
    _require_askable(names, questions, controls, num_control_questions)
    shown_names = model_names(names)
    started = time.monotonic()
    shuffled = shuffled_images(questions, seed)
    answers: list[list[Answer]] = [[] for _ in questions]
    models = []
    for number, name in enumerate(names):
        parts = _load(name, names[-1], device or choose_device())
        system = read_system(names[-1] if name == BASE else name)
        asker = Asker(parts, decoding or Decoding(max_new_tokens=64), batch_size, system)
        label = describe_model(name, shown_names[number])
        models.append(label)
        conditions = ("image", *(controls if number == len(names) - 1 else ())) if parts.model.vision else ("none",)
        for condition in conditions:
            numbers = spread(range(len(questions)), num_control_questions if condition in CONTROLS else None)
            _add_answers(answers, questions, numbers, label["name"], condition, asker, shuffled)
    return Comparison(questions, models, answers, round(time.monotonic() - started, 1), controls)


def _require_askable(
    names: list[str], questions: list[Question], controls: Iterable[str], num_control_questions: int | None
) -> None:
    for control in controls:
        if control not in CONTROLS:
            raise ConfigError("controls", f"unknown control '{control}'. Known: {', '.join(CONTROLS)}.")
    if num_control_questions is not None and num_control_questions < 1:
        raise ConfigError("num_control_questions", f"must be 1 or more (got {num_control_questions}). Mend it.")
    if names[-1] == BASE:
        raise ConfigError(BASE, "it stands for the language model of the last run: name a run folder after it.")
    if not questions:
        raise ConfigError("questions", "there is none to ask. Name a file with questions.")
    for name in names:
        if name != BASE:
            require_complete(Path(name))


def _add_answers(
    answers: list[list[Answer]],
    questions: list[Question],
    numbers: Iterable[int],
    model: str,
    condition: str,
    asker: Asker,
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
    problems = [asker.problem(questions[number].question, shown) for number, shown in zip(chosen, images, strict=True)]
    good = [place for place, problem in enumerate(problems) if not problem]
    texts = iter(asker.ask([questions[chosen[place]].question for place in good], [images[place] for place in good]))
    for number, problem in zip(chosen, problems, strict=True):
        question, shown = questions[number], condition if questions[number].images else "none"
        if problem:
            answers[number].append(Answer(model, shown, "", None, problem))
            continue
        text = next(texts)
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


def model_names(paths: Sequence[str]) -> list[str]:
    """Return what models are called: the last parts of their paths, as many as tell them apart.

    >>> model_names(["base", "runs/a/finetune", "runs/b/finetune/", "runs/c"])
    ['base', 'a/finetune', 'b/finetune', 'c']

    Raises:
        ConfigError: one is named twice.
    """
    resolved = [name if name == BASE else Path(name).resolve().as_posix() for name in paths]
    for name, count in Counter(resolved).items():
        if count > 1:
            raise ConfigError(name, "it is named twice. Name each model once.")
    parts, lengths = [name.split("/") for name in resolved], [1] * len(resolved)
    while True:
        names = ["/".join(part[-length:]) for part, length in zip(parts, lengths, strict=True)]
        same = [number for number, name in enumerate(names) if names.count(name) > 1]
        if not same:
            return names
        for number in same:
            lengths[number] += 1


def describe_model(name: str, shown_name: str) -> dict[str, str]:
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
        "name": shown_name,
        "label": shown_name,
        "note": f"trained: {' + '.join(trained)} ({name})",
    }
