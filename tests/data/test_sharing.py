"""How processes share the batches of a step."""

import numpy as np
import pytest

from mmtune.data.batches import BatchSampler
from mmtune.data.sharing import SharedBatchSampler, shared

RNG = np.random.default_rng(0)


def sampler(num_rows, batches_per_step, **options):
    lengths = np.random.default_rng(num_rows).integers(1, 100, num_rows)
    has_images = np.arange(num_rows) % 3 > 0
    return BatchSampler(lengths, has_images, 1, batch_size=2, batches_per_step=batches_per_step, **options), lengths


@pytest.mark.parametrize("options", [{}, {"group_by_length": True}, {"max_tokens": 150}])
@pytest.mark.parametrize("num_rows", [1, 7, 24, 97])
@pytest.mark.parametrize(("num_ranks", "accumulation"), [(2, 1), (2, 3), (3, 2), (8, 1)])
def test_a_step_of_all_ranks_has_the_batches_of_a_step_of_one(num_ranks, accumulation, num_rows, options):
    whole, lengths = sampler(num_rows, num_ranks * accumulation, **options)
    ranks = [SharedBatchSampler(whole, lengths, rank, num_ranks) for rank in range(num_ranks)]
    for epoch in (0, 1):
        whole.set_epoch(epoch)
        mine = [list(rank) for rank in ranks]
        assert [len(batches) for batches in mine] == [len(rank) for rank in ranks]
        assert len(set(map(len, mine))) == 1
        for step in range(-(-len(whole) // whole.batches_per_step)):
            start = step * whole.batches_per_step
            expected = sorted(map(tuple, list(whole)[start : start + whole.batches_per_step]))
            dealt = [tuple(b) for batches in mine for b in batches[step * accumulation : (step + 1) * accumulation]]
            assert sorted(batch for batch in dealt if batch) == expected
            assert len(dealt) - len(expected) < num_ranks * accumulation


def test_the_largest_batch_goes_where_fewest_tokens_are():
    assert shared([8, 7, 2, 1], 2) == [[0, 3], [1, 2]]
    assert shared([1, 1, 9, 9], 2) == [[0, 2], [1, 3]]
    assert shared([5, 4, 3], 2) == [[0], [1, 2]]
    assert shared([5], 3) == [[0], [], []]


def test_tokens_of_ranks_are_close_where_there_is_a_choice():
    sizes = RNG.integers(100, 2000, 64).tolist()
    totals = [sum(sizes[number] for number in share) for share in shared(sizes, 4)]
    assert max(totals) < 1.02 * min(totals)
