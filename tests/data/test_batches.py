from itertools import chain

import numpy as np
import pytest

from mmtune.data.batches import BatchSampler

LENGTHS = np.random.default_rng(0).integers(5, 400, 203)
IMAGES = np.random.default_rng(1).random(203) < 0.6
KINDS = {
    "plain": {"batch_size": 8},
    "grouped": {"batch_size": 8, "group_by_length": True},
    "budget": {"batch_size": 8, "max_tokens": 1500},
}


def sampler(seed=0, **options):
    return BatchSampler(LENGTHS, IMAGES, seed, **options)


def epoch(batches, number):
    batches.set_epoch(number)
    return list(batches)


@pytest.mark.parametrize("kind", KINDS)
def test_each_epoch_visits_each_row_once_and_has_as_many_batches(kind):
    batches = sampler(**KINDS[kind])
    for number in range(3):
        found = epoch(batches, number)
        assert sorted(row for batch in found for row in batch) == list(range(203))
        assert len(found) == len(batches)


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_is_a_function_of_seed_and_epoch(kind):
    once, again, other = (sampler(seed, **KINDS[kind]) for seed in (0, 0, 1))
    assert epoch(once, 2) == epoch(again, 2)
    assert epoch(once, 2) != epoch(once, 1)
    assert epoch(once, 2) != epoch(other, 2)


def padding(found):
    return sum(len(batch) * LENGTHS[batch].max() - LENGTHS[batch].sum() for batch in found)


def test_groups_are_of_one_kind_and_about_one_length():
    found = epoch(sampler(**KINDS["grouped"]), 1)
    mixed = [batch for batch in found if len(set(IMAGES[batch])) == 2]
    assert len(mixed) <= 2, "only what is left over at the end shares a batch"
    assert padding(found) < 0.3 * padding(epoch(sampler(**KINDS["plain"]), 1))


def test_batches_stay_within_the_budget():
    found = epoch(sampler(**KINDS["budget"]), 1)
    assert max(len(batch) * LENGTHS[batch].max() for batch in found) <= 1500
    assert all(len(set(IMAGES[batch])) == 1 for batch in found)
    assert padding(found) < 0.1 * LENGTHS.sum()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batches_per_step", [1, 4])
def test_the_largest_batch_is_in_the_first_step_of_the_run(kind, batches_per_step):
    found = epoch(sampler(**KINDS[kind], batches_per_step=batches_per_step), 0)
    costs = [len(batch) * LENGTHS[batch].max() for batch in found]
    whole = len(costs) // batches_per_step * batches_per_step
    assert max(costs[:batches_per_step]) == max(costs[:whole])


def test_a_step_holds_the_same_rows_with_any_split_into_batches():
    whole = epoch(sampler(batch_size=8), 0)
    split = epoch(sampler(batch_size=2, batches_per_step=4), 0)
    joined = [list(chain.from_iterable(split[start : start + 4])) for start in range(0, len(split), 4)]
    assert joined == whole


@pytest.mark.parametrize("batch_size", [3, 500])
def test_few_rows(batch_size):
    batches = BatchSampler(np.array([4, 9]), np.array([False, True]), 0, batch_size=batch_size, group_by_length=True)
    assert sorted(chain.from_iterable(epoch(batches, 0))) == [0, 1]
    assert len(batches) == len(epoch(batches, 1))
