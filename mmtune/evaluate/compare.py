"""The same questions to several models: answers, scores, and whether the model looks at the image."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from mmtune.build import Parts, build_parts, choose_device, load_run
from mmtune.chat.exchange import question_message
from mmtune.chat.generate import Decoding, answer_text, embed_images, generate_ids
from mmtune.conversation import Conversation, Message
from mmtune.errors import ConfigError
from mmtune.evaluate.metrics import wilson_interval
from mmtune.evaluate.questions import Question, shuffled_images, spread
from mmtune.run_folder import read_config, require_complete
from mmtune.schema import trained_system

BASE = "base"
CONTROLS = ("blank", "shuffled")
ALL_GROUPS = "all"


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
    names: list[str],
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
        names: run folders from before to after; `base` stands for the language model of the last one, untrained and
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
    controls = tuple(controls)
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


class Asker:
    """Answers single questions in batches of about equal length; each image is encoded once, each prompt asked once.

    Args:
        parts: the model.
        decoding: how answers are chosen.
        batch_size: prompts answered together.
        system: a system message before each question, or None.
    """

    def __init__(self, parts: Parts, decoding: Decoding, batch_size: int, system: str | None = None):
        self.parts, self.decoding, self.batch_size, self.system = parts, decoding, batch_size, system
        self.embeds: dict[str | None, torch.Tensor] = {}

    def ask(self, questions: list[str], images: list[tuple[str | None, ...]]) -> list[str]:
        """Return an answer to each question; an image of None is a blank one. Equal prompts get one answer."""
        asked = list(zip(questions, images, strict=True))
        distinct = list(dict.fromkeys(asked))
        answers = dict(zip(distinct, self._ask(distinct), strict=True))
        return [answers[pair] for pair in asked]

    def _ask(self, asked: list[tuple[str, tuple[str | None, ...]]]) -> list[str]:
        prompts = [self._prompt(text, shown) for text, shown in asked]
        texts = [""] * len(prompts)
        order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
        for batch in _batches(order, self.batch_size):
            embeds = self._image_embeds([asked[number][1] for number in batch])
            ids = generate_ids(self.parts, [prompts[number] for number in batch], embeds, self.decoding)
            for number, answer in zip(batch, ids, strict=True):
                texts[number] = answer_text(self.parts, answer)
        return texts

    def _prompt(self, text: str, images: tuple[str | None, ...]) -> list[int]:
        messages = [Message("system", (self.system,))] if self.system else []
        messages.append(question_message(text, tuple(path or "blank" for path in images)))
        return self.parts.encode(Conversation(tuple(messages)), add_generation_prompt=True).input_ids

    def _image_embeds(self, images: list[tuple[str | None, ...]]) -> list[torch.Tensor | None]:
        new = sorted({path for shown in images for path in shown} - self.embeds.keys(), key=str)
        if new:
            pixels = torch.stack([self._open(path) for path in new])
            self.embeds.update(zip(new, embed_images(self.parts, pixels), strict=True))
        return [torch.stack([self.embeds[path] for path in shown]) if shown else None for shown in images]

    def _open(self, path: str | None) -> torch.Tensor:
        transform = self.parts.transform
        assert transform is not None
        if path is not None:
            return transform.open(path)
        return transform(Image.new("RGB", (transform.image_size,) * 2, transform.padding_colour))


def _batches(items: list[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def score(comparison: Comparison) -> list[dict[str, Any]]:
    """Return one row a set, group, model and condition, with the share of right answers and its 95 % interval.

    Each set also has rows of the group `all`. Questions without a reference do not count.
    """
    counts: dict[tuple[str, str, str, str], list[int]] = {}
    for question, answers in zip(comparison.questions, comparison.answers, strict=True):
        for answer in answers:
            if answer.correct is None:
                continue
            for group in dict.fromkeys((question.group, ALL_GROUPS)):
                row = counts.setdefault((question.set, group, answer.model, answer.condition), [0, 0])
                row[0] += answer.correct
                row[1] += 1
    rows = []
    for (set_name, group, model, condition), (correct, total) in counts.items():
        low, high = wilson_interval(correct, total)
        entry: dict[str, Any] = {
            "set": set_name,
            "group": group,
            "model": model,
            "condition": condition,
            "correct": correct,
            "total": total,
        }
        rows.append(entry | {"rate": correct / total, "low": low, "high": high})
    return rows


def retention(comparison: Comparison) -> dict[str, Any] | None:
    """Of the questions without an image that the first model answers right, how many the last still does."""
    before, after = comparison.models[0]["name"], comparison.models[-1]["name"]
    kept = of = 0
    for question, answers in zip(comparison.questions, comparison.answers, strict=True):
        right = {answer.model: answer.correct for answer in answers if not question.images}
        if right.get(before):
            of += 1
            kept += bool(right.get(after))
    return {"before": before, "after": after, "kept": kept, "of": of} if of else None
