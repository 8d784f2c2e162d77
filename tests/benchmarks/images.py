"""How many images a second are opened, transformed and checked; on image sets that it makes itself.

    python tests/benchmarks/images.py --images 60 --output figures.json

Prints a table and, last, one line of JSON. A figure "per core" counts the processor time of the process, so that other
programs on the machine do not lower it; the other figures are by the clock.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from mmtune.conversation import ImageSlot
from mmtune.data.image_check import check_images
from mmtune.data.image_files import open_image
from mmtune.data.images import ImageTransform

TRANSFORM = ImageTransform(336, (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
SIZES = {"640x480": (640, 480), "1600x1200": (1600, 1200), "4000x3000": (4000, 3000)}
KINDS = {"JPEG": {"quality": 90}, "PNG": {"compress_level": 3}}


class Opened(Dataset):
    """Images as training loads them."""

    def __init__(self, paths: list[Path]):
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        return TRANSFORM.open(self.paths[index])


def write_images(folder: Path, kind: str, size: tuple[int, int], num_images: int) -> list[Path]:
    """Write pictures of smooth shapes under fine noise, which pack about as photographs do; three, and copies."""
    rng, paths = np.random.default_rng(0), []
    encoded = []
    for _ in range(3):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        pixels = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), dtype=np.float32)
        pixels = pixels + rng.normal(0, 4, (size[1], size[0], 1)).astype(np.float32)
        path = folder / "picture"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, kind, **KINDS[kind])
        encoded.append(path.read_bytes())
    for number in range(num_images):
        paths.append(folder / f"{number}.{kind.lower()}")
        paths[-1].write_bytes(encoded[number % len(encoded)])
    return paths


def rate(work: Callable[[], object], num_images: int, clock: Callable[[], float]) -> float:
    """Return images a second, the best of three: what else runs on the machine only ever slows it."""
    times = []
    for _ in range(3):
        started = clock()
        work()
        times.append(clock() - started)
    return round(num_images / min(times), 1)


def measure(paths: list[Path], num_threads: int, num_workers: int) -> dict[str, float]:
    """Return the figures of one set of images."""
    slots = [ImageSlot(str(path)) for path in paths]
    cpu, clock, num_images = time.process_time, time.perf_counter, len(paths)

    def load(num_workers: int) -> None:
        for _ in DataLoader(Opened(paths), batch_size=8, num_workers=num_workers):
            pass

    def open_in_full() -> None:
        for path in paths:
            TRANSFORM(open_image(path))

    figures = {
        "KB": round(sum(path.stat().st_size for path in paths) / num_images / 1024),
        "open + transform, in full, per core": rate(open_in_full, num_images, cpu),
        "open + transform, per core": rate(partial(load, 0), num_images, cpu),
    }
    for decode, name in ((False, "check header"), (True, "check decode")):
        check = partial(check_images, slots, decode=decode)
        figures[f"{name}, per core"] = rate(partial(check, num_threads=1), num_images, cpu)
        for threads in (1, num_threads):
            figures[f"{name}, threads: {threads}"] = rate(partial(check, num_threads=threads), num_images, clock)
    for workers in (0, num_workers):
        figures[f"DataLoader, workers: {workers}"] = rate(partial(load, workers), num_images, clock)
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=120, help="how many of 640 x 480; larger ones are fewer (120)")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="formats (both)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of the checks (one a processor)")
    parser.add_argument("--workers", type=int, default=2, help="of the DataLoader (2)")
    parser.add_argument("--output", type=Path, help="also write the figures here, as JSON")
    args = parser.parse_args()
    torch.set_num_threads(1)
    figures = {}
    for kind in args.kinds:
        for name, size in SIZES.items():
            num_images = max(6, args.images * 640 * 480 // (size[0] * size[1]))
            with tempfile.TemporaryDirectory() as folder:
                paths = write_images(Path(folder), kind, size, num_images)
                figures[f"{kind} {name}"] = measure(paths, args.threads, args.workers)
    rows = list(next(iter(figures.values())))
    print(f"{'':38}" + "".join(f"{name:>17}" for name in figures))
    for row in rows:
        print(f"{row:38}" + "".join(f"{columns[row]:17,.1f}" for columns in figures.values()))
    text = json.dumps(figures)
    print(text)
    if args.output is not None:
        args.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
