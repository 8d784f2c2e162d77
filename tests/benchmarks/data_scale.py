"""Time and memory until step 1 on a set as large as LLaVA's 665k, made here: the first time, and from the cache.

    python tests/benchmarks/data_scale.py --folder /tmp/scale --llm FOLDER_WITH_INTERNLM2_TOKENIZER

Writes a JSON array of 665,298 dialogues of 10 messages on average, about 1 GB, whose words have natural frequencies,
and image files that are hard links to a few hundred real JPEGs. Then prepares it in a process of its own, twice, and
opens it in two processes at once. No model runs.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import time
from itertools import accumulate, islice
from pathlib import Path

NUM_RECORDS = 665_298
SHARE_WITH_IMAGE = 624_610 / 665_298
NUM_DISTINCT_JPEGS = 300
MEAN_WORDS = {"human": 7, "gpt": 22}
MEAN_TURNS = 5
SYLLABLES = "ba be bi bo bu da de di do du ka ke ki ko la le li lo ma me mi mo na ne no pa pe po ra re ri ro sa se ta"


def main() -> None:
    """Make the set, or measure a step of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where the set and the cache are written (4 GB)")
    parser.add_argument("--llm", required=True, help="a folder with the tokenizer")
    parser.add_argument("--num-records", type=int, default=NUM_RECORDS)
    parser.add_argument("--num-images", type=int, default=300_000, help="image files")
    parser.add_argument("--check-images", default="header", choices=("decode", "header", "none"))
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        measure(args)
        return
    make_set(args)
    print(f"{'':20}{'wall s':>8}{'prepared s':>12}{'step 1 s':>10}{'peak MB':>9}{'private MB':>12}{'samples':>10}")
    for name in ("first time", "from the cache"):
        (result,) = run(1)
        show(name, result)
    for number, result in enumerate(run(2), 1):
        show(f"two processes, {number}", result)


def run(count: int) -> list[dict]:
    """Measure in `count` new processes at once."""
    folder = Path(sys.argv[sys.argv.index("--folder") + 1])
    command = [sys.executable, __file__, *sys.argv[1:], "--measure"]
    environment = os.environ | {"MMTUNE_CACHE": str(folder / "cache")}
    started = time.monotonic()
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) for _ in range(count)]
    results = []
    for process in processes:
        output, _ = process.communicate()
        assert process.returncode == 0
        results.append(json.loads(output.splitlines()[-1]) | {"wall": time.monotonic() - started})
    return results


def show(name: str, result: dict) -> None:
    """Print one line of the table."""
    times = f"{result['wall']:8.1f}{result['prepared']:12.1f}{result['step 1']:10.1f}"
    print(f"{name:20}{times}{result['peak_mb']:9.0f}{result['private_mb']:12.0f}{result['samples']:10,}", flush=True)


def measure(args: argparse.Namespace) -> None:
    """Prepare the set and load the first batch of packs."""
    from mmtune.build_data import build_dataset, build_reader, packed
    from mmtune.data.collate import collate
    from mmtune.progress import Bars
    from mmtune.schema import Config, DataSource, VisionConfig
    from mmtune.training.steps import batch_sampler

    config = Config()
    config.model.llm.name_or_path, config.model.llm.chat_template = args.llm, "internlm2_chat"
    config.model.vision = VisionConfig(source="transformers", name=str(args.folder / "clip"))
    config.data.train = [DataSource(path=str(args.folder / "set.json"), image_folder=str(args.folder / "images"))]
    config.data.check_images, config.data.pack_to_max_length = args.check_images, True
    config.train.per_device_train_batch_size = 4
    started = time.monotonic()
    with Bars() as bars:
        dataset, report = build_dataset(config, build_reader(config.model), bars)
    assert report.num_records == args.num_records
    assert not report.problems, report.problems[0]
    prepared = time.monotonic()
    rows = packed(config, dataset)
    first = next(iter(batch_sampler(config, rows)))
    collate([rows[row] for row in first])
    result = {
        "prepared": prepared - started,
        "step 1": time.monotonic() - started,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "private_mb": private_mb(),
        "samples": len(dataset),
    }
    print(json.dumps(result))


def private_mb() -> float:
    """Return the memory that no other process shares."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    values = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return (values["Private_Clean"] + values["Private_Dirty"]) / 1024


def make_set(args: argparse.Namespace) -> None:
    """Write the JSON file, the images and the shape of CLIP ViT-L/14-336, unless they are there."""
    from transformers import CLIPVisionConfig

    from mmtune.testing_vision import CLIP_L_336_SHAPE

    path, partial = args.folder / "set.json", args.folder / "set.part"
    if not path.is_file():
        args.folder.mkdir(parents=True, exist_ok=True)
        CLIPVisionConfig(**CLIP_L_336_SHAPE).save_pretrained(args.folder / "clip")
        make_images(args.folder / "images", args.num_images)
        rng = random.Random(0)
        words = endless_words(rng)
        with partial.open("w", encoding="utf-8") as file:
            for number in range(args.num_records):
                file.write((",\n" if number else "[\n") + json.dumps(make_record(number, args.num_images, rng, words)))
            file.write("\n]\n")
        partial.rename(path)
    print(f"{args.num_records:,} records, {path.stat().st_size / 1e6:.0f} MB, {args.num_images:,} image files")


def make_record(number: int, num_images: int, rng: random.Random, words) -> dict:
    """Return one dialogue."""
    turns = []
    for _ in range(max(1, round(rng.gauss(MEAN_TURNS, 2.5)))):
        for side, mean in MEAN_WORDS.items():
            text = " ".join(islice(words, max(2, round(rng.expovariate(1 / mean)))))
            turns.append({"from": side, "value": text.capitalize() + ("?" if side == "human" else ".")})
    record = {"id": f"{number:09}", "conversations": turns}
    if rng.random() < SHARE_WITH_IMAGE:
        image = rng.randrange(num_images)
        record["image"] = f"{image % 100:02}/{image:06}.jpg"
        turns[0]["value"] = "<image>\n" + turns[0]["value"]
    return record


def endless_words(rng: random.Random):
    """Yield words, English and made ones, as often as Zipf's law says."""
    license_text = (Path(__file__).parents[2] / "LICENSE").read_text().lower().split()
    english = sorted({word.strip('.,;:()"') for word in license_text if word.strip('.,;:()"').isalpha()})
    rng.shuffle(english)
    syllables = SYLLABLES.split()
    words = english + sorted({"".join(rng.choices(syllables, k=rng.choice((1, 2, 2, 3, 4)))) for _ in range(30_000)})
    weights = list(accumulate(1 / rank for rank in range(1, len(words) + 1)))
    while True:
        yield from rng.choices(words, cum_weights=weights, k=1 << 16)


def make_images(folder: Path, count: int) -> None:
    """Write JPEGs of 640 x 480, and hard links to them under `count` names."""
    import numpy as np
    from PIL import Image

    originals = folder / "originals"
    originals.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(NUM_DISTINCT_JPEGS):
        coarse = Image.fromarray(rng.integers(0, 256, (15, 20, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((640, 480), Image.Resampling.BICUBIC)).astype(int)
        pixels = np.clip(smooth + rng.integers(-12, 13, smooth.shape), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(originals / f"{number}.jpg", quality=90)
    for number in range(100):
        (folder / f"{number:02}").mkdir()
    for number in range(count):
        os.link(originals / f"{number % NUM_DISTINCT_JPEGS}.jpg", folder / f"{number % 100:02}" / f"{number:06}.jpg")


if __name__ == "__main__":
    main()
