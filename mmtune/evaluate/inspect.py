"""Show encoded samples with their supervised tokens: most data bugs die here."""

import json
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from rich.text import Text

from mmtune.conversation import IGNORE_INDEX, IMAGE_TOKEN_ID, Sample


def sample_text(sample: Sample, tokenizer: Any) -> Text:
    """Return a sample as it will be trained: supervised tokens green, all others red, images as `<image x N>`."""
    text = Text()
    for is_image, is_supervised, ids in _spans(sample):
        if is_image:
            text.append(f"<image x {len(ids)}>", style="blue")
        else:
            text.append(tokenizer.decode(ids), style="green" if is_supervised else "red")
    return text


def _spans(sample: Sample) -> Iterator[tuple[bool, bool, list[int]]]:
    pairs = zip(sample.input_ids, sample.labels, strict=True)
    for (is_image, is_supervised), span in groupby(
        pairs, key=lambda pair: (pair[0] == IMAGE_TOKEN_ID, pair[1] != IGNORE_INDEX)
    ):
        yield is_image, is_supervised, [token for token, _ in span]


def sample_title(sample: Sample) -> str:
    """Return one line of facts about a sample."""
    images = f", {len(sample.images)} image{'' if len(sample.images) == 1 else 's'}" if sample.images else ""
    cut = f", {sample.num_cut_tokens} cut off" if sample.num_cut_tokens else ""
    return f"{sample.place}: {len(sample.input_ids)} tokens, {sample.num_supervised_tokens} supervised{images}{cut}"


def sample_json(sample: Sample) -> str:
    """Return a sample as one line of JSON: `line`, `input_ids` (images as -200), `labels`, `images`."""
    line = int(sample.place.rsplit(":", 1)[1])
    value = {
        "line": line,
        "input_ids": sample.input_ids,
        "labels": sample.labels,
        "images": list(sample.images),
    }
    return json.dumps(value, ensure_ascii=False)
