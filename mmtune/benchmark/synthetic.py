"""Synthetic records and images of realistic sizes: what a benchmark trains on instead of somebody's data."""

import json
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mmtune.build_data import Reader

WORDS = (
    *("the", "a", "of", "and", "to", "in", "is", "on", "with", "for", "at", "by", "it", "as", "an", "one", "two"),
    *("red", "blue", "man", "dog", "cat", "car", "tree", "house", "water", "sky", "street"),
)
NUM_IMAGES = 32
SPREAD = (0.5, 1.5)
"""Lengths are drawn evenly between these shares of their mean."""


@dataclass(frozen=True)
class Shape:
    """How long samples are.

    Attributes:
        num_turns: questions and answers of a sample.
        question_tokens: mean length of a question, without what a template adds.
        answer_tokens: mean length of an answer.
    """

    num_turns: int
    question_tokens: int
    answer_tokens: int


SHAPES = {"pretrain": Shape(1, 8, 22), "finetune": Shape(5, 12, 32), "sft": Shape(2, 60, 160)}
"""What each verb trains on: captions, LLaVA's dialogues of about 5 turns, instructions."""


def write_records(folder: Path, reader: Reader, shape: Shape, num_samples: int, max_length: int) -> Path:
    """Write records in LLaVA's format, and their images where the model sees; return the file.

    Samples of more than `max_length` tokens get shorter texts. The same arguments give the same bytes.
    """
    rng = random.Random(0)
    per_token = len(WORDS) / len(reader.tokenizer(" ".join(WORDS), add_special_tokens=False)["input_ids"])
    text = shape.num_turns * (shape.question_tokens + shape.answer_tokens) * SPREAD[1]
    room = max_length - reader.num_image_tokens - 16 * shape.num_turns
    scale = per_token * min(1.0, max(room, 0) / text)

    def words(mean: int) -> str:
        return " ".join(rng.choices(WORDS, k=max(1, round(mean * scale * rng.uniform(*SPREAD)))))

    if reader.num_image_tokens:
        _write_images(folder)
    path = folder / "records.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number in range(num_samples):
            mark = "<image>\n" if reader.num_image_tokens else ""
            turns = []
            for turn in range(shape.num_turns):
                question = (mark if turn == 0 else "") + words(shape.question_tokens)
                turns += [{"from": "human", "value": question}, {"from": "gpt", "value": words(shape.answer_tokens)}]
            record = {"id": str(number), "conversations": turns}
            if reader.num_image_tokens:
                record["image"] = f"{number % NUM_IMAGES}.jpg"
            file.write(json.dumps(record) + "\n")
    return path


def _write_images(folder: Path) -> None:
    """Photos in size and cost of decoding: 640 x 480, smooth areas with noise, quality 90."""
    generator = np.random.default_rng(0)
    for number in range(NUM_IMAGES):
        coarse = Image.fromarray(generator.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((640, 480), Image.Resampling.BICUBIC), dtype=np.int16)
        noisy = np.clip(smooth + generator.integers(-8, 9, smooth.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"{number}.jpg", quality=90)
