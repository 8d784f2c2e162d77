"""The order of samples: a function of seed and epoch alone."""

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler


class ShuffledSampler(Sampler[int]):
    """A new order each epoch that depends on nothing but the seed and the epoch.

    With `group_size`, samples of about equal length come together: the shuffled order is cut into windows of many
    groups, each window is sorted by length, and its groups of `group_size` are shuffled again. Padding shrinks while
    every epoch still visits each sample once.

    Args:
        lengths: tokens of each sample.
        seed: of the order.
        group_size: samples of one batch; None shuffles without looking at lengths.
    """

    GROUPS_PER_WINDOW = 16

    def __init__(self, lengths: list[int], seed: int, group_size: int | None = None):
        self.lengths, self.seed, self.group_size = lengths, seed, group_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the given epoch; called by the training loop."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(len(self.lengths), generator=generator).tolist()
        if self.group_size is None:
            return iter(order)
        window = self.group_size * self.GROUPS_PER_WINDOW
        groups = []
        for start in range(0, len(order), window):
            ordered = sorted(order[start : start + window], key=lambda index: -self.lengths[index])
            groups += [ordered[i : i + self.group_size] for i in range(0, len(ordered), self.group_size)]
        full = [group for group in groups if len(group) == self.group_size]
        short = [group for group in groups if len(group) < self.group_size]
        shuffled = [full[i] for i in torch.randperm(len(full), generator=generator).tolist()]
        return iter([index for group in shuffled + short for index in group])
