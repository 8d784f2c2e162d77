"""From items of a dataset to one batch of tensors: padded rows, or one row of all samples without padding."""

from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from mmtune.conversation import IGNORE_INDEX

IMAGE_VALUES = ("pixel_values", "image_features")


def collate(items: list[dict[str, torch.Tensor]], pad_token_id: int = 0) -> dict[str, Any]:
    """Pad on the right and stack the images in the order of their slots.

    Padding needs no attention mask in training: attention is causal, so no token sees what stands to its right, and
    padded positions carry no label. Where there are positions, padding has position 0, as if each padded token began
    a sample of its own.

    Args:
        items: `input_ids` int64[T_i], `labels` int64[T_i], for packs `position_ids` int64[T_i], and maybe
            `pixel_values` float32[N_i, 3, H, W] or `image_features` float[N_i, tokens, D].
        pad_token_id: any id of the vocabulary.

    Returns:
        `input_ids`, `labels` and maybe `position_ids`, each int64[B, T], the images of all items together, and
        `sample_lengths`, the tokens of each sample without padding, row after row. No items make an empty batch.
    """
    if not items:
        return empty_batch()
    padding = {"input_ids": pad_token_id, "labels": IGNORE_INDEX, "position_ids": 0}
    batch = {
        name: pad_sequence([item[name] for item in items], True, value)
        for name, value in padding.items()
        if name in items[0]
    }
    return batch | _images(items) | {"sample_lengths": _sample_lengths(items)}


def collate_joined(items: list[dict[str, torch.Tensor]]) -> dict[str, Any]:
    """Join all samples into one row: nothing is padded, and positions start at 0 in each sample.

    The first label of a sample is never supervised, so nothing is predicted across a border. Attention must keep
    samples apart, by `position_ids` and `sample_lengths`.

    Args:
        items: as for `collate`; those with `position_ids` are packs of several samples.

    Returns:
        `input_ids`, `labels` and `position_ids`, each int64[1, T], the images of all items together, and
        `sample_lengths`, the tokens of each sample. No items make an empty batch.
    """
    if not items:
        return empty_batch()
    positions = [item.get("position_ids", torch.arange(len(item["input_ids"]))) for item in items]
    row = {name: torch.cat([item[name] for item in items])[None] for name in ("input_ids", "labels")}
    row["position_ids"] = torch.cat(positions)[None]
    return row | _images(items) | {"sample_lengths": _sample_lengths(items)}


def empty_batch() -> dict[str, Any]:
    """Return a batch of no samples: its loss is 0, and so is each gradient of it.

    A process gets it where a step has fewer batches than processes, and takes its part in the sums of all. Its two
    tokens, which nobody sees, are there because a model takes no empty tensor.
    """
    ids = torch.zeros(1, 2, dtype=torch.int64)
    return {"input_ids": ids, "labels": torch.full_like(ids, IGNORE_INDEX), "sample_lengths": ()}


def _sample_lengths(items: list[dict[str, torch.Tensor]]) -> tuple[int, ...]:
    """The tokens of each sample; an item with positions holds one for each position 0."""
    lengths: list[int] = []
    for item in items:
        length = len(item["input_ids"])
        starts = (item["position_ids"] == 0).nonzero()[:, 0].tolist() if "position_ids" in item else [0]
        lengths += [end - start for start, end in zip(starts, [*starts[1:], length], strict=True)]
    return tuple(lengths)


def _images(items: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    given = {name: [item[name] for item in items if name in item] for name in IMAGE_VALUES}
    return {name: torch.cat(images) for name, images in given.items() if images}


def collate_prompts(prompts: list[list[int]], pad_token_id: int) -> dict[str, torch.Tensor]:
    """Pad prompts on the left for generation.

    Returns:
        `input_ids` int64[B, T] and `attention_mask` int64[B, T], 0 at the padding.
    """
    length = max(map(len, prompts))
    ids = torch.tensor([[pad_token_id] * (length - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return {"input_ids": ids, "attention_mask": mask}
