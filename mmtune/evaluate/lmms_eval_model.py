"""A run as a model of lmms-eval, found there by the entry point `lmms_eval.models`. Imported by lmms-eval alone."""

from collections.abc import Iterator
from typing import Any

import torch
from lmms_eval.api.instance import GenerationResult, Instance
from lmms_eval.api.model import lmms
from lmms_eval.models.registry_v2 import ModelManifest
from PIL import Image

from mmtune.build import load_run
from mmtune.chat.generate import Decoding, answer_text, embed_images, generate_ids
from mmtune.conversation import IGNORE_INDEX
from mmtune.data.encode import text_ids
from mmtune.errors import ConfigError
from mmtune.evaluate.asking import batches, question_ids
from mmtune.models.device import choose_device
from mmtune.models.scoring import score_answers
from mmtune.run_folder import read_system

MAX_NEW_TOKENS = 128
"""The longest answer where a task sets none."""

MANIFEST = ModelManifest(model_id="mmtune", simple_class_path=f"{__name__}.Run")


class Run(lmms):
    """A run folder: `--model mmtune --model_args run=PATH`.

    Args:
        run: the folder, or a checkpoint.
        batch_size: questions answered together.
        device: `cpu`, `cuda`, or `auto`: a GPU where there is one.
        max_batch_size: given by lmms-eval, which finds no batch size here.
    """

    def __init__(
        self, run: str, batch_size: int | str = 1, device: str = "auto", max_batch_size: int | None = None
    ) -> None:
        super().__init__()
        if not str(batch_size).isdecimal() or int(batch_size) < 1:
            raise ConfigError("batch_size", f"must be a whole number, 1 or more (got {batch_size}). Mend it.")
        self.batch_size = int(batch_size)
        self.parts = load_run(run, device=choose_device() if device == "auto" else torch.device(device))
        self.system = read_system(run)

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Answer questions, those with one way of decoding together.

        Args:
            requests: with `args` (question, generation options, images of a record, its number, task, split).
        """
        answers = [""] * len(requests)
        for options, numbers in _by_options(requests):
            for batch in batches(numbers, self.batch_size):
                texts = self._generated([requests[number] for number in batch], options)
                for number, text in zip(batch, texts, strict=True):
                    answers[number] = text
        return answers

    def _generated(self, requests: list[Instance], options: dict[str, Any]) -> list[str]:
        images = [self._images(request) for request in requests]
        embeds = [self._embedded(shown) for shown in images]
        prompts = [
            question_ids(self.parts, request.args[0], len(shown), self.system)
            for request, shown in zip(requests, images, strict=True)
        ]
        ids = generate_ids(self.parts, prompts, embeds, _decoding(options))
        return [_before(answer_text(self.parts, answer), options.get("until", [])) for answer in ids]

    def loglikelihood(self, requests: list[Instance]) -> list[GenerationResult]:
        """Return of each answer its mean loss behind its question, and whether greedy decoding would say it.

        lmms-eval takes the answer of the smallest loss, and its own models return the mean of the tokens, whatever the
        name says. A pair on its own would be made a text by lmms-eval 0.7.3; inside a result it stays one.

        Args:
            requests: with `args` (question, answer or a function of the record, images of a record, its number, task,
                split).
        """
        return [GenerationResult(self._loss(request)) for request in requests]

    def _loss(self, request: Instance) -> tuple[float, bool]:
        images = self._images(request)
        prompt = question_ids(self.parts, request.args[0], len(images), self.system)
        wanted = request.args[1]
        answer = wanted if isinstance(wanted, str) else wanted(self._record(request))
        ids = text_ids(answer, self.parts.tokenizer)
        labels = [IGNORE_INDEX] * len(prompt) + ids
        batch: dict[str, Any] = {"input_ids": torch.tensor([prompt + ids]), "labels": torch.tensor([labels])}
        if images:
            batch["pixel_values"] = torch.stack([self._pixels(image) for image in images])
        moved = {key: value.to(self.parts.model.device) for key, value in batch.items()}
        losses, hits = score_answers(self.parts.model, moved)
        return float(losses.double().mean()), bool(hits.all())

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        """Refuse: tasks of several rounds are not answered.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("--tasks", "mmtune answers tasks of one round (got one of several). Leave it out.")

    def _record(self, request: Instance) -> Any:
        _, _, _, number, task, split = request.args
        return self.task_dict[task][split][number]

    def _images(self, request: Instance) -> list[Image.Image]:
        shown = request.args[2](self._record(request)) or []
        if not all(isinstance(image, Image.Image) for image in shown):
            kinds = ", ".join(sorted({type(image).__name__ for image in shown}))
            raise ConfigError(request.args[4], f"mmtune sees images (got {kinds}). Leave the task out.")
        if shown and self.parts.transform is None:
            raise ConfigError(request.args[4], "this run was trained on text alone and cannot see. Leave the task out.")
        return list(shown)

    def _pixels(self, image: Image.Image) -> torch.Tensor:
        assert self.parts.transform is not None
        return self.parts.transform(image.convert("RGB"))

    def _embedded(self, images: list[Image.Image]) -> torch.Tensor | None:
        if not images:
            return None
        return embed_images(self.parts, torch.stack([self._pixels(image) for image in images]))


def _by_options(requests: list[Instance]) -> Iterator[tuple[dict[str, Any], list[int]]]:
    """The ways of decoding that tasks ask for, and the numbers of the requests of each, short questions first."""
    groups: dict[str, tuple[dict[str, Any], list[int]]] = {}
    for number, request in enumerate(requests):
        groups.setdefault(repr(request.args[1]), (request.args[1], []))[1].append(number)
    for options, numbers in groups.values():
        yield options, sorted(numbers, key=lambda number: len(requests[number].args[0]))


def _decoding(options: dict[str, Any]) -> Decoding:
    is_drawn = options.get("do_sample", True) and options.get("temperature")
    return Decoding(
        max_new_tokens=options.get("max_new_tokens", MAX_NEW_TOKENS),
        temperature=float(options["temperature"]) if is_drawn else 0.0,
        top_p=float(options.get("top_p") or 1.0),
    )


def _before(answer: str, ends: str | list[str]) -> str:
    """The answer up to the first text that ends it."""
    for end in [ends] if isinstance(ends, str) else ends:
        answer = answer.split(end)[0] if end else answer
    return answer.strip()
