import numpy as np
import pytest

from mmtune.data.packing import pack


@pytest.mark.parametrize("num_samples", [1, 32, 200, 1001, 10001])
@pytest.mark.parametrize("capacity", [64, 2048])
def test_every_sample_is_in_one_pack_and_every_token_is_kept(num_samples, capacity):
    lengths = np.random.default_rng(num_samples).integers(1, capacity + 1, num_samples)
    packs = pack(lengths, capacity, seed=0)
    assert sorted(packs.members.tolist()) == list(range(num_samples))
    totals = packs.sums(lengths)
    assert totals.sum() == lengths.sum()
    assert totals.max() <= capacity
    assert [sum(lengths[packs[number]]) for number in range(len(packs))] == totals.tolist()


def test_packs_of_short_dialogues_are_full():
    lengths = np.random.default_rng(0).integers(20, 700, 5000)
    packs = pack(lengths, 2048, seed=0)
    assert lengths.sum() / (len(packs) * 2048) > 0.99


def test_the_best_fit_is_taken():
    packs = pack(np.array([7, 6, 3, 4]), 10, seed=0)
    assert [sorted(packs[number].tolist()) for number in range(len(packs))] == [[0, 2], [1, 3]]


def test_packs_depend_on_the_seed_alone():
    lengths = np.random.default_rng(0).integers(5, 50, 300)
    same, again, other = (pack(lengths, 100, seed).members.tolist() for seed in (1, 1, 2))
    assert same == again != other


def test_no_sample_no_pack():
    assert len(pack(np.array([], dtype=np.int64), 10, seed=0)) == 0
