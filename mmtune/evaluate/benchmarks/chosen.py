"""Which questions of a benchmark are asked: a draw of them, with their images found. No image is opened."""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmtune.conversation import ImageSlot
from mmtune.data.image_folder import ImageFolder
from mmtune.errors import ConfigError, DataError
from mmtune.evaluate.benchmarks.benchmark import Benchmark, Item
from mmtune.evaluate.benchmarks.files import folder_of
from mmtune.hashing import value_hash


def draw(items: list[Item], limit: int | None, seed: int) -> list[Item]:
    """Draw `limit` units at random, in the order of the benchmark; all where there are no more, or for None.

    A unit is asked whole: both questions about an image of MME, all rotations of MMBench.
    """
    units = list(dict.fromkeys(item.drawn_as for item in items))
    if limit is None or limit >= len(units):
        return items
    drawn = set(random.Random(seed).sample(units, limit))
    return [item for item in items if item.drawn_as in drawn]


def find_images(
    benchmark: Benchmark, items: Sequence[Item], data: Path, image_folder: Path | None
) -> tuple[list[Item], list[str]]:
    """Return the questions whose images are there, with slots for their images, and a line for each other one.

    Args:
        benchmark: theirs.
        items: as read.
        data: the data folder, or a file in it.
        image_folder: where the images are; None takes the benchmark's own place.

    Raises:
        ConfigError: an image folder for a benchmark that has none.
        DataError: not one question has its images.
    """
    if benchmark.image_folder is None:
        if image_folder is not None:
            message = f"{benchmark.title} has no images in files. Leave the option out."
            raise ConfigError("--image-folder", message)
        return list(items), []
    folder = image_folder or folder_of(data) / benchmark.image_folder
    images = ImageFolder(folder, follow_links=True)
    found, missing = [], []
    for item in items:
        try:
            slots = tuple(_slot(images, image) for image in item.images)
        except ValueError as error:
            missing.append(f"{item.place}: {error}")
            continue
        found.append(replace(item, images=slots))
    if missing and not found:
        message = f"none of the images is there; the first: {missing[0].removesuffix('.')}"
        raise DataError(folder.resolve(), f"{message}. Name their folder with --image-folder.")
    return found, missing


def _slot(images: ImageFolder, image: str | ImageSlot) -> ImageSlot:
    return image if isinstance(image, ImageSlot) else ImageSlot(images.resolve(image))


def prompt_of(item: Item, instruction: str) -> str:
    """Return what a model is asked: the question, and the instruction on a line of its own."""
    return f"{item.question}\n{instruction}" if instruction else item.question


def questions_hash(items: Sequence[Item]) -> str:
    """Return a hash of all that decides what is asked and what is right; not of where the files lie."""
    return value_hash([_plain(item) for item in items])


def _plain(item: Item) -> list[Any]:
    images = [image if isinstance(image, str) else value_hash((image.data or b"").hex()) for image in item.images]
    return [item.id, item.question, images, item.reference, item.options, item.group, item.unit]
