import random
from itertools import pairwise

import pytest

from mmtune.data.sampler import ShuffledSampler


def order(lengths, seed=0, epoch=0, group_size=None):
    sampler = ShuffledSampler(lengths, seed, group_size)
    sampler.set_epoch(epoch)
    return list(sampler)


def lengths_of(count):
    return random.Random(count).sample(range(1, 10 * count + 1), count)


@pytest.mark.parametrize("group_size", [None, 1, 4, 7])
@pytest.mark.parametrize("count", [0, 1, 3, 64, 65, 1001])
def test_each_sample_is_visited_once(count, group_size):
    sampler = ShuffledSampler(lengths_of(count), 3, group_size)
    assert sorted(sampler) == list(range(count))
    assert len(sampler) == count


@pytest.mark.parametrize("group_size", [None, 4])
def test_the_order_depends_on_seed_and_epoch_alone(group_size):
    lengths = lengths_of(200)
    first = order(lengths, 1, 0, group_size)
    random.seed(5)
    assert order(lengths, 1, 0, group_size) == first
    others = [order(lengths, 1, 1, group_size), order(lengths, 2, 0, group_size), list(range(200))]
    assert all(other != first for other in others)


def test_an_epoch_can_be_taken_up_again():
    sampler = ShuffledSampler(lengths_of(50), 0)
    sampler.set_epoch(1)
    second = list(sampler)
    sampler.set_epoch(0)
    assert list(sampler) != second
    sampler.set_epoch(1)
    assert list(sampler) == second


def padding(lengths, visited, group_size):
    rows = [[lengths[index] for index in visited[i : i + group_size]] for i in range(0, len(visited), group_size)]
    return sum(max(row) * len(row) - sum(row) for row in rows)


@pytest.mark.parametrize("group_size", [4, 16])
def test_groups_shrink_the_padding_to_a_quarter(group_size):
    lengths = lengths_of(1001)
    plain = padding(lengths, order(lengths), group_size)
    grouped = padding(lengths, order(lengths, group_size=group_size), group_size)
    assert grouped < plain / 4


def test_groups_do_not_come_sorted_and_an_incomplete_one_comes_last():
    lengths = lengths_of(1001)
    visited = order(lengths, group_size=4)
    longest = [max(lengths[index] for index in visited[i : i + 4]) for i in range(0, 1001, 4)]
    rises = sum(second > first for first, second in pairwise(longest))
    assert 80 < rises < 170
    last_window = order(lengths)[960:]
    assert visited[-1] == min(last_window, key=lambda index: lengths[index])
