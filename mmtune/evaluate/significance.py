"""How sure a mean is, and whether two models differ on the same questions. Resampling is seeded: equal runs agree."""

import math
from collections.abc import Callable

import numpy as np

NUM_RESAMPLES = 2000
NUM_SWAPS = 10_000

Statistic = Callable[[np.ndarray], float]


def mean(values: np.ndarray) -> float:
    """Return the mean of one figure a question, float[N]."""
    return float(values.mean())


def bootstrap_interval(values: np.ndarray, statistic: Statistic = mean, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % interval of a figure by the percentile bootstrap (Efron 1979) over questions.

    Args:
        values: float[N, ...] what is known of each question.
        statistic: makes the figure of it.
        seed: of the resamples.

    >>> bootstrap_interval(np.array([0.5, 0.5, 0.5]))
    (0.5, 0.5)
    """
    rng = np.random.default_rng(seed)
    figures = [statistic(values[rng.integers(0, len(values), len(values))]) for _ in range(NUM_RESAMPLES)]
    low, high = np.quantile(figures, (0.025, 0.975))
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


def permutation_p(before: np.ndarray, after: np.ndarray, statistic: Statistic = mean, seed: int = 0) -> float:
    """Return the two-sided p of the paired permutation test on the difference of two figures.

    Were the models alike, what they did on a question could as well be swapped. All swaps are tried where they are no
    more than `NUM_SWAPS`, else so many are drawn and the observed one is counted among them, so that p is never 0.

    Args:
        before: float[N, ...] what is known of each question.
        after: of the same questions.
        statistic: makes the figure of it.
        seed: of the swaps.

    >>> permutation_p(np.zeros(5), np.ones(5)), permutation_p(np.zeros(3), np.zeros(3))
    (0.0625, 1.0)
    """
    differs = np.flatnonzero((before != after).reshape(len(before), -1).any(1))
    observed = abs(statistic(after) - statistic(before))
    is_whole = 2 ** len(differs) <= NUM_SWAPS
    num_swaps = 2 ** len(differs) if is_whole else NUM_SWAPS
    rng = np.random.default_rng(seed)
    num_extreme = 0
    for number in range(num_swaps):
        drawn = (number >> np.arange(len(differs))) & 1 if is_whole else rng.integers(0, 2, len(differs))
        swapped = differs[drawn == 1]
        first, second = before.copy(), after.copy()
        first[swapped], second[swapped] = after[swapped], before[swapped]
        num_extreme += abs(statistic(second) - statistic(first)) >= observed - 1e-9
    return num_extreme / num_swaps if is_whole else (num_extreme + 1) / (num_swaps + 1)
