"""How a run answers the questions of a benchmark, batch after batch."""

import logging
from collections.abc import Iterator
from typing import Any, Protocol

import torch

from mmtune.build import Parts
from mmtune.conversation import Document
from mmtune.data.collate import collate
from mmtune.data.encode import encode_document
from mmtune.errors import ConfigError
from mmtune.evaluate.asking import Asker, batches
from mmtune.evaluate.benchmarks.benchmark import Item
from mmtune.evaluate.benchmarks.chosen import prompt_of
from mmtune.models.scoring import score_answers

log = logging.getLogger(__name__)
BATCHES_AT_A_TIME = 4
"""So many batches are sorted by length together and saved at once."""


class Answerer(Protocol):
    """Answers items; what cannot be answered is left out, with a line in the log."""

    def answers(self, items: list[Item]) -> Iterator[list[tuple[Item, Any]]]:
        """Yield the answers of some items at a time, in about their order."""
        ...


class Generator:
    """Answers questions in words, by greedy decoding.

    Args:
        asker: the model.
        instruction: what stands behind each question.
    """

    def __init__(self, asker: Asker, instruction: str):
        self.asker, self.instruction = asker, instruction

    def answers(self, items: list[Item]) -> Iterator[list[tuple[Item, Any]]]:
        """Yield the texts that the model says.

        Raises:
            ConfigError: there are images, and the model cannot see.
        """
        if self.asker.parts.transform is None and any(item.images for item in items):
            message = "this model was trained on text alone and cannot see. Take a benchmark of text, or another run."
            raise ConfigError("--benchmark", message)
        for some in batches(items, BATCHES_AT_A_TIME * self.asker.batch_size):
            wrong = self.asker.see(image for item in some for image in item.images)
            asked = []
            for item in some:
                problem = next((wrong[image] for image in item.images if image in wrong), None)
                if problem is None:
                    asked.append(item)
                else:
                    log.error("%s: not asked: %s", item.place, problem)
            texts = self.asker.ask(
                [prompt_of(item, self.instruction) for item in asked], [item.images for item in asked]
            )
            yield list(zip(asked, texts, strict=True))


class Predictor:
    """Measures how well a model predicts texts.

    Args:
        parts: the model.
        max_length: tokens that the model sees at once; longer texts are cut into parts of so many.
        batch_size: parts measured together.
    """

    def __init__(self, parts: Parts, max_length: int, batch_size: int):
        self.parts, self.max_length, self.batch_size = parts, max_length, batch_size

    def answers(self, items: list[Item]) -> Iterator[list[tuple[Item, Any]]]:
        """Yield of each text the sum of the loss over its tokens in nats, and how many were predicted."""
        for item in items:
            samples = encode_document(
                Document(item.question), self.parts.tokenizer, max_length=self.max_length, place=item.place
            )
            loss, tokens = 0.0, 0
            for some in batches(samples, self.batch_size):
                rows = [
                    {"input_ids": torch.tensor(sample.input_ids), "labels": torch.tensor(sample.labels)}
                    for sample in some
                ]
                batch = collate(rows, self.parts.tokenizer.pad_token_id)
                moved = {key: batch[key].to(self.parts.model.device) for key in ("input_ids", "labels")}
                losses, _ = score_answers(self.parts.model, moved)
                loss, tokens = loss + float(losses.double().sum()), tokens + len(losses)
            if tokens:
                yield [(item, {"loss": loss, "tokens": tokens})]
            else:
                log.error("%s: not asked: the text is a single token, of which nothing is predicted", item.place)
