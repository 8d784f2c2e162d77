"""Measures a model on held-out samples while it trains: loss and token accuracy over all supervised tokens."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from mmtune.conversation import IGNORE_INDEX
from mmtune.models.scoring import score_answers
from mmtune.models.vlm import VisionLanguageModel
from mmtune.processes import num_processes, rank
from mmtune.schema import Config
from mmtune.schema_train import batch_size_of
from mmtune.training.held_out import HeldOut
from mmtune.training.ranks import summed
from mmtune.training.rows import Collator
from mmtune.training.workers import worker_options

Batch = dict[str, Any]


class Evaluation:
    """Held-out samples in batches, and what a model makes of them.

    Args:
        config: of the run.
        held_out: what is measured.
        collator: makes batches as those of training.
    """

    def __init__(self, config: Config, held_out: HeldOut, collator: Collator):
        self.config, self.held_out, self.collator = config, held_out, collator
        data = config.data
        size = config.train.per_device_eval_batch_size or batch_size_of(config)
        budget = data.max_tokens_per_batch
        if data.pack_to_max_length and budget is None:
            budget = size * data.max_length  # as many tokens as a batch of packs
        self.batches = eval_batches(held_out.samples.lengths, size, budget)

    def measure(self, model: VisionLanguageModel, prepare: Callable[[Batch], Batch]) -> dict[str, float]:
        """Return `eval_loss`, perplexity and token accuracy; of several sources also theirs, as `eval_SOURCE_loss`.

        Each is of the mean over supervised tokens, however samples are batched. Several processes share the batches,
        unless each needs the others to run the model; the sums are those of one, bit for bit.

        Args:
            model: in eval mode.
            prepare: brings a batch to the model's device.
        """
        names, samples = self.held_out.names, self.held_out.samples
        of_samples = np.zeros((len(samples), 3))  # loss, right tokens, tokens
        for numbers, batch in self._loaded(model.is_split):
            losses, is_right = score_answers(model, prepare(batch["rows"]))
            table = torch.stack([losses.cpu(), is_right.cpu()], dim=1).double()
            for index, values in zip(numbers, table.split(batch["counts"]), strict=True):
                of_samples[index] = [*values.sum(0).tolist(), len(values)]
        if not model.is_split:
            of_samples = summed(of_samples)  # a sample of another rank is 0 here
        sums = np.zeros((len(names), 3))
        for index in chain.from_iterable(self.batches):
            sums[samples.locate(index)[0]] += of_samples[index]
        figures = _means("eval", sums.sum(0))
        if len(names) > 1:
            for name, row in zip(names, sums, strict=True):
                figures |= _means(f"eval_{name}", row) if row[2] else {}
        return figures

    def _loaded(self, takes_all: bool) -> Iterator[tuple[list[int], Batch]]:
        """This rank's batches with the numbers of their samples; workers have a generator of their own for seeds."""
        batches = self.batches if takes_all else self.batches[rank() :: num_processes()]
        loader = DataLoader(
            self.held_out.samples,
            batch_sampler=batches,
            collate_fn=self._collated,
            generator=torch.Generator(),
            **worker_options(self.config.train),
        )
        return zip(batches, loader, strict=True)

    def _collated(self, items: list[dict[str, torch.Tensor]]) -> Batch:
        counts = [int((item["labels"][1:] != IGNORE_INDEX).sum()) for item in items]
        return {"rows": self.collator(items), "counts": counts}


def _means(prefix: str, sums: np.ndarray) -> dict[str, float]:
    loss, right, tokens = sums.tolist()
    perplexity = float(np.exp(np.float64(loss / tokens)))
    return {
        f"{prefix}_loss": loss / tokens,
        f"{prefix}_perplexity": perplexity,
        f"{prefix}_token_accuracy": right / tokens,
    }


def eval_batches(lengths: np.ndarray, batch_size: int, max_tokens: int | None = None) -> list[list[int]]:
    """Return batches of samples of about equal length, the longest first.

    Args:
        lengths: int[S] tokens of each sample.
        batch_size: samples of a batch.
        max_tokens: of a batch, padding included; then `batch_size` does not count.
    """
    order = np.argsort(-np.asarray(lengths), kind="stable").tolist()
    batches, start = [], 0
    while start < len(order):
        size = batch_size if max_tokens is None else max(1, max_tokens // int(lengths[order[start]]))
        batches.append(order[start : start + size])
        start += size
    return batches


def training_means(history: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return `train_loss` and `grad_norm`, the means of what was logged since the evaluation before.

    Where nothing was, those of the last line; nothing where there is none. Values that are not finite do not count:
    their steps changed no weight.

    Args:
        history: the Trainer's `log_history`. Evaluations have a `train_loss` there.
    """
    steps: list[dict[str, Any]] = []
    recent: list[dict[str, Any]] = []
    for entry in history:
        if "loss" in entry:
            steps.append(entry)
            recent.append(entry)
        elif "train_loss" in entry:
            recent = []
    recent = recent or steps[-1:]
    means: dict[str, float] = {}
    for name, key in (("train_loss", "loss"), ("grad_norm", "grad_norm")):
        values = [entry[key] for entry in recent if math.isfinite(entry.get(key, math.nan))]
        if values:
            means[name] = sum(values) / len(values)
    return means
