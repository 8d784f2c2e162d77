"""How sure a mean is, and whether two models differ on the same questions. Resampling is seeded: equal runs agree."""

import math

import numpy as np

NUM_RESAMPLES = 2000
NUM_FLIPS = 10_000


def bootstrap_interval(values: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % interval of a mean by the percentile bootstrap (Efron 1979) over questions.

    Args:
        values: float[N] one figure a question.
        seed: of the resamples.

    >>> bootstrap_interval(np.array([0.5, 0.5, 0.5]))
    (0.5, 0.5)
    """
    rng = np.random.default_rng(seed)
    means = [values[rng.integers(0, len(values), len(values))].mean() for _ in range(NUM_RESAMPLES)]
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def mcnemar_p(num_gained: int, num_lost: int) -> float:
    """Return the two-sided p of McNemar's exact test: questions that both models get right, or wrong, do not count.

    Args:
        num_gained: questions wrong before and right after.
        num_lost: questions right before and wrong after.

    >>> mcnemar_p(5, 0), mcnemar_p(3, 3), mcnemar_p(0, 0)
    (0.0625, 1.0, 1.0)
    """
    total, fewer = num_gained + num_lost, min(num_gained, num_lost)
    tail = sum(math.comb(total, number) for number in range(fewer + 1))
    return min(1.0, 2 * tail / 2**total)


def permutation_p(before: np.ndarray, after: np.ndarray, seed: int = 0) -> float:
    """Return the two-sided p of the paired permutation test on the difference of two means.

    Were the models alike, each question's two figures could as well be swapped. All swaps are counted where they are no
    more than `NUM_FLIPS`, else so many are drawn and the observed one is counted among them, so that p is never 0.

    Args:
        before: float[N] one figure a question.
        after: float[N] of the same questions.
        seed: of the swaps.

    >>> permutation_p(np.zeros(5), np.ones(5)), permutation_p(np.zeros(3), np.zeros(3))
    (0.0625, 1.0)
    """
    differences = after - before
    differences = differences[differences != 0]  # the sign of 0 changes nothing
    observed = abs(differences.sum())
    tolerance = 1e-9 * np.abs(differences).sum()
    if 2 ** len(differences) <= NUM_FLIPS:
        numbers = np.arange(2 ** len(differences))[:, None]
        signs = 1 - 2 * ((numbers >> np.arange(len(differences))) & 1)
        return float((np.abs(signs @ differences) >= observed - tolerance).mean())
    rng = np.random.default_rng(seed)
    sums = (np.where(rng.random(len(differences)) < 0.5, 1, -1) @ differences for _ in range(NUM_FLIPS))
    extreme = sum(abs(total) >= observed - tolerance for total in sums)
    return float((extreme + 1) / (NUM_FLIPS + 1))
