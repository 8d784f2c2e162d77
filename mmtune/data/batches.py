"""Which rows form a batch, and in which order batches come: a function of seed and epoch alone.

A row is a sample, or a pack of samples. Nothing here depends on workers, ranks or what was read before, so a run that
is continued asks for the batches that are missing and for no others.
"""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler


class BatchSampler(Sampler[list[int]]):
    """Batches of row numbers, each row once an epoch.

    Without `group_by_length` rows are shuffled and cut into batches. With it, the shuffled order is cut into windows of
    many batches and each window is sorted by length, so that rows of a batch are about equally long; rows with and
    without images come in batches of their own, as in LLaVA, so that no step runs the vision encoder for one row in
    many. With `max_tokens`, batches are as large as the budget allows: their rows times their longest row. Those
    are composed once; their order is new each epoch.

    In the first epoch the optimizer step with the largest batch comes first, so that a run which does not fit says so
    at step 1. The step is moved as a whole: the same samples share a step with any split into batches.

    Args:
        lengths: int[R] tokens of each row.
        has_images: bool[R].
        seed: of the order.
        batch_size: rows of a batch.
        max_tokens: tokens of a batch, padding included; then `batch_size` does not count.
        group_by_length: see above.
        batches_per_step: batches of an optimizer step.
    """

    BATCHES_PER_WINDOW = 16

    def __init__(
        self,
        lengths: np.ndarray,
        has_images: np.ndarray,
        seed: int,
        *,
        batch_size: int,
        max_tokens: int | None = None,
        group_by_length: bool = False,
        batches_per_step: int = 1,
    ):
        self.lengths, self.has_images = np.asarray(lengths), np.asarray(has_images, dtype=bool)
        self.seed, self.batch_size, self.group_by_length = seed, batch_size, group_by_length
        self.batches_per_step, self.drop_last = batches_per_step, False
        self.epoch = 0
        self.budgeted = None if max_tokens is None else self._within(max_tokens)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the given epoch; called by the training loop."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.budgeted) if self.budgeted is not None else -(-len(self.lengths) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        return iter([batch.tolist() for batch in self.batches()])

    @property
    def is_composed_anew(self) -> bool:
        """Whether the epochs have different batches; else only their order is new."""
        return self.budgeted is None and self.batch_size > 1

    def batches(self) -> list[np.ndarray]:
        """Return the batches of the epoch, each int64[rows]."""
        rng = np.random.default_rng((self.seed, self.epoch))
        if self.budgeted is not None:
            batches = [self.budgeted[number] for number in rng.permutation(len(self.budgeted))]
        elif self.group_by_length:
            batches = self._grouped(rng)
        else:
            batches = _cut(rng.permutation(len(self.lengths)), self.batch_size)
        return self._largest_first(batches) if self.epoch == 0 else batches

    def _largest_first(self, batches: list[np.ndarray]) -> list[np.ndarray]:
        size = self.batches_per_step
        num_whole = (len(self.lengths) // self.batch_size if self.budgeted is None else len(batches)) // size
        if not num_whole:
            return batches
        costs = padded_sizes(batches, self.lengths)[: num_whole * size]
        first = int(costs.reshape(num_whole, size).max(1).argmax()) * size
        return batches[first : first + size] + batches[:first] + batches[first + size :]

    def _grouped(self, rng: np.random.Generator) -> list[np.ndarray]:
        full, left_over = [], []
        order = rng.permutation(len(self.lengths))
        for rows in (order[self.has_images[order]], order[~self.has_images[order]]):
            for window in _cut(rows, self.batch_size * self.BATCHES_PER_WINDOW):
                batches = _cut(window[np.argsort(-self.lengths[window], kind="stable")], self.batch_size)
                full += [batch for batch in batches if len(batch) == self.batch_size]
                left_over += [batch for batch in batches if len(batch) < self.batch_size]
        shuffled = [full[number] for number in rng.permutation(len(full))]
        return shuffled + (_cut(np.concatenate(left_over), self.batch_size) if left_over else [])

    def _within(self, max_tokens: int) -> list[np.ndarray]:
        """Batches of rows with and without images, in order of length, each as long as the budget allows."""
        order = np.random.default_rng(self.seed).permutation(len(self.lengths))
        order = order[np.lexsort((-self.lengths[order], ~self.has_images[order]))]
        batches, start = [], 0
        while start < len(order):
            size = max(1, max_tokens // int(self.lengths[order[start]]))
            batch = order[start : start + size]
            batch = batch[self.has_images[batch] == self.has_images[batch[0]]]
            batches.append(batch)
            start += len(batch)
        return batches


def _cut(rows: np.ndarray, size: int) -> list[np.ndarray]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def padded_sizes(batches: list[np.ndarray], lengths: np.ndarray) -> np.ndarray:
    """Return the tokens of each batch, its rows padded to their longest: int[B].

    Args:
        batches: rows of each; none is empty.
        lengths: int[R] tokens of each row.
    """
    return np.array([len(batch) for batch in batches]) * _reduced(np.maximum, batches, lengths)


def joined_sizes(batches: list[np.ndarray], lengths: np.ndarray) -> np.ndarray:
    """Return the tokens of each batch without padding: int[B]; arguments as `padded_sizes`."""
    return _reduced(np.add, batches, lengths)


def _reduced(combine: np.ufunc, batches: list[np.ndarray], values: np.ndarray) -> np.ndarray:
    starts = np.cumsum([0, *(len(batch) for batch in batches[:-1])])
    return combine.reduceat(values[np.concatenate(batches)], starts)
