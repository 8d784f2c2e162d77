"""Which of the batches of an optimizer step each of several processes gets."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from mmtune.data.batches import BatchSampler


class SharedBatchSampler(Sampler[list[int]]):
    """The batches of one of several processes.

    Steps are those of one process: a step of W processes with accumulation A has the batches that one process with
    accumulation W * A would have, in any case. They are dealt out step by step, whole, as many to each process: the
    largest batch goes to the process that has the fewest tokens so far and still takes one. At the end of an epoch,
    where a step has too few batches for that, some processes get an empty one: no row is trained twice and none is
    left out.

    Worked example: batches of 8, 7, 2 and 1 tokens are 8 + 1 and 7 + 2 for 2 processes.

    Args:
        batches: of all processes; its `batches_per_step` is W * A.
        sizes: int[R] tokens of each row.
        rank: of this process.
        num_ranks: how many share: W.
    """

    def __init__(self, batches: BatchSampler, sizes: np.ndarray, rank: int, num_ranks: int):
        assert batches.batches_per_step % num_ranks == 0
        self.batch_sampler, self.sizes, self.rank, self.num_ranks = batches, np.asarray(sizes), rank, num_ranks
        self.drop_last = False

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the given epoch; called by the training loop."""
        self.batch_sampler.set_epoch(epoch)

    def __len__(self) -> int:
        whole, rest = divmod(len(self.batch_sampler), self.batch_sampler.batches_per_step)
        return whole * (self.batch_sampler.batches_per_step // self.num_ranks) + -(-rest // self.num_ranks)

    def __iter__(self) -> Iterator[list[int]]:
        batches, size = self.batch_sampler.batches(), self.batch_sampler.batches_per_step
        for start in range(0, len(batches), size):
            step = batches[start : start + size]
            shares = shared([int(self.sizes[batch].sum()) for batch in step], self.num_ranks)
            most = -(-len(step) // self.num_ranks)
            mine = [step[number].tolist() for number in shares[self.rank]]
            yield from mine + [[]] * (most - len(mine))


def shared(sizes: list[int], num_ranks: int) -> list[list[int]]:
    """Deal batches out: the largest goes to the rank with the fewest tokens that still takes one.

    Args:
        sizes: tokens of each batch.
        num_ranks: how many share; each takes as many batches as are needed for all to find a place.

    Returns:
        The numbers of each rank's batches, in their order.
    """
    most = -(-len(sizes) // num_ranks)
    shares: list[list[int]] = [[] for _ in range(num_ranks)]
    totals = [0] * num_ranks
    for number in sorted(range(len(sizes)), key=lambda number: -sizes[number]):
        free = [rank for rank in range(num_ranks) if len(shares[rank]) < most]
        chosen = min(free, key=lambda rank: totals[rank])
        shares[chosen].append(number)
        totals[chosen] += sizes[number]
    return [sorted(share) for share in shares]
