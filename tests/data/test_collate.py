import torch

from mmtune.conversation import IGNORE_INDEX
from mmtune.data.collate import collate, collate_joined, collate_prompts


def item(length, num_images=0, start=0):
    ids = torch.arange(10, 10 + length)
    images = {"pixel_values": torch.full((num_images, 3, 2, 2), 0.0) + start} if num_images else {}
    return {"input_ids": ids, "labels": ids.clone()} | images


def test_rows_are_padded_on_the_right_without_labels():
    batch = collate([item(2), item(4)], pad_token_id=7)
    assert batch["input_ids"].tolist() == [[10, 11, 7, 7], [10, 11, 12, 13]]
    assert batch["labels"].tolist() == [[10, 11, IGNORE_INDEX, IGNORE_INDEX], [10, 11, 12, 13]]
    assert batch["input_ids"].dtype == batch["labels"].dtype == torch.int64
    assert batch["sample_lengths"] == (2, 4)
    assert set(batch) == {"input_ids", "labels", "sample_lengths"}


def test_images_are_stacked_in_the_order_of_their_rows():
    batch = collate([item(2, 2, start=1), item(1), item(3, 1, start=2)])
    assert batch["pixel_values"].shape == (3, 3, 2, 2)
    assert batch["pixel_values"][:, 0, 0, 0].tolist() == [1, 1, 2]


def test_prompts_are_padded_on_the_left_and_masked():
    batch = collate_prompts([[1, 2, 3], [4]], pad_token_id=9)
    assert batch["input_ids"].tolist() == [[1, 2, 3], [9, 9, 4]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]
    assert batch["input_ids"].dtype == batch["attention_mask"].dtype == torch.int64


def test_samples_are_joined_into_one_row_without_padding():
    packed = item(5, 1, start=2) | {"position_ids": torch.tensor([0, 1, 0, 1, 2])}
    batch = collate_joined([item(2), packed, item(1, 2, start=3)])
    assert batch["input_ids"].tolist() == [[10, 11, 10, 11, 12, 13, 14, 10]]
    assert batch["labels"].tolist() == batch["input_ids"].tolist()
    assert batch["position_ids"].tolist() == [[0, 1, 0, 1, 0, 1, 2, 0]]
    assert batch["sample_lengths"] == (2, 2, 3, 1)
    assert batch["pixel_values"][:, 0, 0, 0].tolist() == [2, 3, 3]
