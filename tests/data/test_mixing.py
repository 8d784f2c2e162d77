from itertools import pairwise

import numpy as np
import pytest

from mmtune.data.mixing import Share, mix, path_and_limit


def counts(order, sizes):
    ends = np.cumsum([0, *sizes])
    return [int(((order >= a) & (order < b)).sum()) for a, b in pairwise(ends)]


def test_without_settings_every_sample_comes_once():
    assert mix([3, 2], [Share(), Share()], seed=0).tolist() == [0, 1, 2, 3, 4]


def test_a_limit_draws_without_replacement_and_by_the_seed():
    order = mix([1000], [Share(limit=30)], seed=1)
    assert len(set(order.tolist())) == 30
    assert order.tolist() == mix([1000], [Share(limit=30)], seed=1).tolist()
    assert order.tolist() != mix([1000], [Share(limit=30)], seed=2).tolist()
    assert mix([5], [Share(limit=30)], seed=1).tolist() == [0, 1, 2, 3, 4]


def test_a_fraction_repeats_some():
    order = mix([10], [Share(repeat=2.5)], seed=0).tolist()
    assert sorted(order.count(index) for index in range(10)) == [2] * 5 + [3] * 5
    assert len(set(mix([10], [Share(repeat=0.5)], seed=0).tolist())) == 5


def test_weights_give_each_source_its_share():
    """The worked example of the docstring."""
    order = mix([10, 30], [Share(weight=1), Share(weight=1)], seed=0)
    assert counts(order, [10, 30]) == [20, 20]
    assert sorted(order[:20].tolist()) == sorted(list(range(10)) * 2)
    assert len(set(order[20:].tolist())) == 20


@pytest.mark.parametrize("weights", [(1, 2, 4), (0.1, 0.1, 0.1), (5, 1e-9, 1)])
def test_shares_add_up_to_the_epoch(weights):
    sizes = [7, 11, 3]
    order = mix(sizes, [Share(weight=weight) for weight in weights], seed=0)
    assert len(order) == 21
    exact = np.array(weights) / sum(weights) * 21
    assert np.abs(np.array(counts(order, sizes)) - exact).max() < 1


def test_draws_of_one_source_do_not_depend_on_the_others():
    alone = mix([100], [Share(limit=10)], seed=3)
    beside = mix([100, 50], [Share(limit=10), Share(repeat=3)], seed=3)
    assert beside[:10].tolist() == alone.tolist()


def test_an_empty_source_takes_no_share():
    assert len(mix([0, 4], [Share(weight=1), Share(weight=1)], seed=0)) == 2
    assert mix([0, 4], [Share(), Share()], seed=0).tolist() == [0, 1, 2, 3]


def test_a_number_behind_the_path_is_a_limit(desk):
    """The worked example of the docstring."""
    assert path_and_limit("data.json#500") == ("data.json", 500)
    assert path_and_limit("data.json") == ("data.json", None)
    assert path_and_limit("hub:owner/name#20") == ("hub:owner/name", 20)
    (desk / "odd#7").write_text("")
    assert path_and_limit("odd#7") == ("odd#7", None)
