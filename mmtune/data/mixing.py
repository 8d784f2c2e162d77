"""How much of each data source an epoch holds: a function of the sizes, the settings and the seed alone."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Share:
    """How much of a source is taken.

    Attributes:
        limit: at most this many samples, drawn at random once; None: all.
        repeat: how often an epoch visits each; 0.5 draws half of them, 2.5 visits each twice and half once more.
        weight: share of the epoch relative to the other sources' weights; None: as large as it is.
    """

    limit: int | None = None
    repeat: float = 1.0
    weight: float | None = None


def path_and_limit(path: str) -> tuple[str, int | None]:
    """Split `data.json#500` into the path and the number of samples drawn from it; a file of that very name wins.

    Worked example: `data.json#500` gives `("data.json", 500)`, and `data.json` gives `("data.json", None)`.
    """
    match = re.fullmatch(r"(.+)#(\d+)", path)
    if match is None or os.path.exists(path):
        return path, None
    return match[1], int(match[2])


def mix(sizes: Sequence[int], shares: Sequence[Share], seed: int) -> np.ndarray:
    """Return the samples of an epoch, sources one after the other: int64[E], counted through all sources.

    With weights, an epoch is as long as all sources together (after limit and repeat), and each gets its share: a
    small source comes several times, a large one in part.

    Worked example: sizes 10 and 30 with weights 1 and 1 give 20 of each: the first source twice, two thirds of the
    second.

    Args:
        sizes: samples of each source.
        shares: of each source; all have a weight or none.
        seed: of the draws.
    """
    kept, offset = [], 0
    for number, (size, share) in enumerate(zip(sizes, shares, strict=True)):
        rng = np.random.default_rng((seed, number))
        chosen = np.arange(size)
        if share.limit is not None and share.limit < size:
            chosen = np.sort(rng.permutation(size)[: share.limit])
        kept.append((offset + _times(chosen, round(share.repeat * len(chosen)), rng), rng))
        offset += size
    if all(share.weight is None for share in shares):
        return np.concatenate([indices for indices, _ in kept])
    weights = np.array([share.weight for share in shares], dtype=np.float64)
    counts = _apportioned(weights / weights.sum(), sum(len(indices) for indices, _ in kept))
    pairs = zip(kept, counts, strict=True)
    return np.concatenate([_times(indices, count, rng) for (indices, rng), count in pairs])


def _times(indices: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` of the indices: whole passes, then some drawn without replacement, in order."""
    if not len(indices):
        return indices
    passes, rest = divmod(count, len(indices))
    drawn = np.sort(rng.permutation(len(indices))[:rest])
    return np.concatenate([np.tile(indices, passes), indices[drawn]])


def _apportioned(parts: np.ndarray, total: int) -> list[int]:
    """Whole numbers near `parts * total` that add up to it (largest remainders)."""
    exact = parts * total
    counts = np.floor(exact).astype(np.int64)
    largest = np.argsort(-(exact - counts), kind="stable")[: total - int(counts.sum())]
    counts[largest] += 1
    return counts.tolist()
