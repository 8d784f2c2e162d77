"""From items of a dataset to one batch of tensors."""

import torch
from torch.nn.utils.rnn import pad_sequence

from mmtune.conversation import IGNORE_INDEX


def collate(items: list[dict[str, torch.Tensor]], pad_token_id: int = 0) -> dict[str, torch.Tensor]:
    """Pad on the right and stack the images in the order of their slots.

    Padding needs no attention mask in training: attention is causal, so no token sees what stands to its right, and
    padded positions carry no label.

    Args:
        items: `input_ids` int64[T_i], `labels` int64[T_i] and maybe `pixel_values` float32[N_i, 3, H, W].
        pad_token_id: any id of the vocabulary.

    Returns:
        `input_ids` int64[B, T], `labels` int64[B, T] and, when an item has images, `pixel_values`
        float32[sum of N_i, 3, H, W].
    """
    batch = {
        "input_ids": pad_sequence([item["input_ids"] for item in items], True, pad_token_id),
        "labels": pad_sequence([item["labels"] for item in items], True, IGNORE_INDEX),
    }
    images = [item["pixel_values"] for item in items if "pixel_values" in item]
    if images:
        batch["pixel_values"] = torch.cat(images)
    return batch


def collate_prompts(prompts: list[list[int]], pad_token_id: int) -> dict[str, torch.Tensor]:
    """Pad prompts on the left for generation.

    Returns:
        `input_ids` int64[B, T] and `attention_mask` int64[B, T], 0 at the padding.
    """
    length = max(map(len, prompts))
    ids = torch.tensor([[pad_token_id] * (length - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return {"input_ids": ids, "attention_mask": mask}
