"""Which images are the same picture file, whatever they are called: a number of each, kept beside the prepared data."""

import hashlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from mmtune.data.image_bytes import opened_bytes
from mmtune.data.part import Part
from mmtune.hashing import value_hash

SAMPLED_BYTES = 1 << 14
"""Read at the start and at the end of a file. Two files that agree there and in their size are taken for one."""

NUM_THREADS = 8


def image_digests(part: Part, image_ids: np.ndarray) -> np.ndarray:
    """Return a number of the content of some of a part's distinct images: int64[N].

    Read once: the numbers are found again while size and time of a file stay the same.

    Args:
        part: the source.
        image_ids: int64[N] which of its images; each can be opened.
    """
    name = f"digests-{value_hash([part.images.root, part.images.follow_links])[:16]}.bin"
    stamps, table = part.stamps(image_ids), part.store.image_table(name, 3)
    is_known = (table[:, :2] == stamps).all(1) & stamps.any(1)
    missing = image_ids[~is_known[image_ids]]
    if len(missing):
        with ThreadPoolExecutor(NUM_THREADS) as pool:
            digests = list(pool.map(lambda number: _digest(part, number), missing.tolist()))
        table[missing] = np.column_stack([stamps[missing], np.array(digests, np.int64)])
        part.store.keep_image_table(name, table)
    return table[image_ids, 2]


def _digest(part: Part, image_id: int) -> int:
    with opened_bytes(part.locate(image_id)) as (stream, size):
        start = stream.tell()
        digest = hashlib.blake2b(size.to_bytes(8, "little"), digest_size=8)
        digest.update(stream.read(min(size, SAMPLED_BYTES)))
        stream.seek(start + max(0, size - SAMPLED_BYTES))
        digest.update(stream.read(min(size, SAMPLED_BYTES)))
    return int.from_bytes(digest.digest(), "little", signed=True)
