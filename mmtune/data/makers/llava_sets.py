"""The image sets of LLaVA's data files: how their paths begin, and where LLaVA's own pages say to get them.

Only the table and the naming of groups live here. Source of the addresses: the README of
https://github.com/haotian-liu/LLaVA ("Visual Instruction Tuning", "Pretrain") and its docs/Data.md.
"""

import posixpath
import re
from typing import NamedTuple


class ImageSet(NamedTuple):
    """Where a set of images comes from.

    Attributes:
        name: what it is called.
        address: the archive, page or script that LLaVA names.
        unpack_into: the folder to unpack in, relative to the image folder.
        note: a known trap, or an empty text.
    """

    name: str
    address: str
    unpack_into: str
    note: str = ""


PRETRAIN_GROUP = "00000..."
COCO_NAMES_GROUP = "COCO names, no folder"
CC3M_NAMES_GROUP = "GCC_train names, no folder"
NO_FOLDER_GROUP = "no folder"

_COCO = "http://images.cocodataset.org/zips/train2017.zip"
_VG = "https://cs.stanford.edu/people/rak248/VG_100K_2"

IMAGE_SETS: dict[str, ImageSet] = {
    "coco/train2017": ImageSet("COCO train2017", _COCO, "coco"),
    "gqa/images": ImageSet("GQA", "https://downloads.cs.stanford.edu/nlp/data/gqa/images.zip", "gqa"),
    "ocr_vqa/images": ImageSet(
        "OCR-VQA, by a download script",
        "https://drive.google.com/drive/folders/1_GYPY5UkUy7HIcR0zq3ZCFgeZN7BAfm_?usp=sharing",
        "ocr_vqa/images",
        "LLaVA saved every file as .jpg, the script keeps .gif and .png: give --write-fixed OUT.json.",
    ),
    "textvqa/train_images": ImageSet(
        "TextVQA train_val_images", "https://dl.fbaipublicfiles.com/textvqa/images/train_val_images.zip", "textvqa"
    ),
    "vg/VG_100K": ImageSet("Visual Genome, part 1", f"{_VG}/images.zip", "vg"),
    "vg/VG_100K_2": ImageSet("Visual Genome, part 2", f"{_VG}/images2.zip", "vg"),
    PRETRAIN_GROUP: ImageSet(
        "LLaVA-Pretrain, images.zip",
        "https://huggingface.co/datasets/liuhaotian/LLaVA-Pretrain",
        ".",
    ),
    COCO_NAMES_GROUP: ImageSet(
        "COCO train2017", _COCO, ".", "LLaVA-Instruct-150K names no folder: --image-folder is coco/train2017 itself."
    ),
    CC3M_NAMES_GROUP: ImageSet(
        "LLaVA-CC3M-Pretrain-595K, images.zip",
        "https://huggingface.co/datasets/liuhaotian/LLaVA-CC3M-Pretrain-595K",
        ".",
    ),
}


def group_of(path: str) -> str:
    """Return the key of `IMAGE_SETS` that a path of a record belongs to, else its first folder."""
    parts = posixpath.normpath(path.replace("\\", "/")).split("/")
    if len(parts) == 1:
        if re.fullmatch(r"\d{12}\.jpg", parts[0]):
            return COCO_NAMES_GROUP
        return CC3M_NAMES_GROUP if parts[0].startswith("GCC_train_") else NO_FOLDER_GROUP
    if "/".join(parts[:2]) in IMAGE_SETS:
        return "/".join(parts[:2])
    return PRETRAIN_GROUP if re.fullmatch(r"\d{5}", parts[0]) else parts[0] or "/"
