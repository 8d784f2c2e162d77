"""Which samples are held out for validation: whole images at a time, so that none is on both sides."""

import numpy as np

from mmtune.data.dataset import SampleDataset
from mmtune.data.image_digests import image_digests

SPLIT = 0x5EED
"""Beside the run's seed, so that the draw is not the one of another purpose."""


def hold_out(dataset: SampleDataset, fraction: float, seed: int) -> tuple[SampleDataset, SampleDataset] | None:
    """Split the samples of an epoch into those that are trained and those that are measured, each of these once.

    Samples that show the same picture stay together, also by way of others; so do text samples of one record and of
    records that say the same.

    Args:
        dataset: the samples; some may come several times.
        fraction: of the different samples, that is held out at most; at least one group is.
        seed: of the draw.

    Returns:
        Both sides, over the same parts; None where all samples belong together.
    """
    samples = np.unique(dataset.order)
    is_held = draw_groups(sample_groups(dataset, samples), fraction, seed)
    if is_held.all():
        return None
    held = samples[is_held]
    trained = dataset.order[~np.isin(dataset.order, held)]
    return SampleDataset(dataset.parts, trained, dataset.transform), SampleDataset(
        dataset.parts, held, dataset.transform
    )


def draw_groups(groups: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Draw whole groups until no further one fits into the fraction; if none fits, the smallest: bool[S].

    Args:
        groups: int64[S] the group of each sample.
        fraction: of the samples.
        seed: of the draw.
    """
    _, members, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    wanted, taken = round(fraction * len(groups)), 0
    is_drawn = np.zeros(len(sizes), dtype=bool)
    order = np.random.default_rng((seed, SPLIT)).permutation(len(sizes))
    for group in order.tolist():
        if taken + sizes[group] <= wanted:
            is_drawn[group] = True
            taken += int(sizes[group])
    if not taken:
        is_drawn[order[np.argmin(sizes[order])]] = True
    return is_drawn[members]


def sample_groups(dataset: SampleDataset, samples: np.ndarray) -> np.ndarray:
    """Return a number for each sample that those share which must stay together: int64[S].

    Args:
        dataset: with the samples' parts.
        samples: int64[S] in order, counted through all parts.
    """
    owners, keys = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for part, offset in zip(dataset.parts, dataset.offsets[:-1].tolist(), strict=True):
        store = part.store
        inside = np.flatnonzero((samples >= offset) & (samples < offset + len(store)))
        local = samples[inside] - offset
        place = np.full(len(store), -1)
        place[local] = inside
        shown = place[store.image_owners()]
        image_ids = np.asarray(store.arrays["image_ids"], np.int64)[shown >= 0]
        distinct, index = np.unique(image_ids, return_inverse=True)
        is_text = store.num_images[local] == 0
        owners += [shown[shown >= 0], inside[is_text]]
        keys += [image_digests(part, distinct)[index], store.arrays["record_hashes"][local[is_text]].view(np.int64)]
    return _joined(np.concatenate(owners), np.concatenate(keys), len(samples))


def _joined(owners: np.ndarray, keys: np.ndarray, num_samples: int) -> np.ndarray:
    """The group of each sample, where samples with a key in common are of one group (union-find over the keys)."""
    _, numbers = np.unique(keys, return_inverse=True)
    parents = list(range(len(numbers)))

    def root(key: int) -> int:
        while parents[key] != key:
            parents[key] = parents[parents[key]]
            key = parents[key]
        return key

    first = [-1] * num_samples
    for owner, key in zip(owners.tolist(), numbers.tolist(), strict=True):
        if first[owner] < 0:
            first[owner] = key
        else:
            parents[root(key)] = root(first[owner])
    return np.array([root(key) for key in first], dtype=np.int64)
