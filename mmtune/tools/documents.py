"""Look-up in a folder of text documents: passages ranked by the words they share with a query (BM25).

No path is taken from a query, and no link is followed, so nothing outside the folder is read.
"""

import math
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

SUFFIXES = (".txt", ".md", ".rst")
MAX_BYTES = 20 * 2**20
PASSAGE_CHARACTERS = 600
NUM_PASSAGES = 3
WORDS = re.compile(r"[a-z0-9]+|[\u3040-\u30ff\u3400-\u9fff]")
"""Words of Latin letters and digits; of Chinese and Japanese each character."""


def look_up(folder: Path, query: str) -> str:
    """Return the passages that fit a query best, each behind the name of its file.

    Source: Robertson and Zaragoza, The Probabilistic Relevance Framework: BM25 and Beyond, 2009; k1 1.2, b 0.75.

    Args:
        folder: of text documents.
        query: words.

    Raises:
        ValueError: the query has no word, or the folder has too much text.
    """
    wanted = set(WORDS.findall(query.lower()))
    if not wanted:
        raise ValueError("the query has no word")
    passages = list(_passages(folder))
    counts = [Counter(WORDS.findall(text.lower())) for _, text in passages]
    lengths = [count.total() for count in counts]
    mean = sum(lengths) / max(len(lengths), 1) or 1.0
    found_in = {word: sum(word in count for count in counts) for word in wanted}
    scored = []
    for number, (count, length) in enumerate(zip(counts, lengths, strict=True)):
        score = 0.0
        for word in wanted & count.keys():
            rarity = math.log(1 + (len(passages) - found_in[word] + 0.5) / (found_in[word] + 0.5))
            score += rarity * count[word] * 2.2 / (count[word] + 1.2 * (0.25 + 0.75 * length / mean))
        if score:
            scored.append((-score, number))
    best = [passages[number] for _, number in sorted(scored)[:NUM_PASSAGES]]
    return "\n\n".join(f"{name}: {text}" for name, text in best) or "nothing found"


def _passages(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield name and text of each paragraph; long ones in pieces."""
    for path in _files(folder):
        text = path.read_text(encoding="utf-8", errors="replace")
        for paragraph in re.split(r"\n\s*\n", text):
            words = " ".join(paragraph.split())
            for start in range(0, len(words), PASSAGE_CHARACTERS):
                yield path.relative_to(folder).as_posix(), words[start : start + PASSAGE_CHARACTERS]


def _files(folder: Path) -> list[Path]:
    found, num_bytes = [], 0
    for parent, folders, names in os.walk(folder, followlinks=False):
        folders.sort()
        for name in sorted(names):
            path = Path(parent, name)
            if path.suffix.lower() in SUFFIXES and not path.is_symlink() and path.is_file():
                num_bytes += path.stat().st_size
                found.append(path)
    if num_bytes > MAX_BYTES:
        raise ValueError(f"the folder has {num_bytes / 2**20:.0f} MiB of text, more than {MAX_BYTES >> 20}")
    return found
