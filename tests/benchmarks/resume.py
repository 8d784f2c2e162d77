"""How long a run takes to its first step, fresh and resumed at step 5,000 of an epoch of 100,000 records.

python tests/benchmarks/resume.py [--records 100000] [--step 5000] [--folder DIR]

A tiny model, so that nothing but the start is measured. The data is prepared beforehand in both cases.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from training_workspace import write_config

from mmtune.cli import main
from mmtune.data.images import ImageTransform
from mmtune.testing import write_tiny_clip, write_tiny_llm
from mmtune.training.trainer import RunTrainer

BATCH = 2
opened: list[object] = []
first_steps: list[tuple[float, int]] = []


def write_data(num_records: int) -> None:
    """Write one record a line; every one shows one of a hundred images."""
    for number in range(100):
        Image.new("RGB", (32, 32), (number, 255 - number, 90)).save(f"{number}.png")
    with Path("captions.jsonl").open("w") as file:
        for number in range(num_records):
            ask = {"from": "human", "value": f"<image>\nWhat is it? {number}"}
            talk = [ask, {"from": "gpt", "value": "It. " * (1 + number % 5)}]
            file.write(json.dumps({"image": f"{number % 100}.png", "conversations": talk}) + "\n")


def watch() -> None:
    """Note when the first step of a run ends, and every image that is opened."""
    open_image, step = ImageTransform.open, RunTrainer.training_step

    def opened_image(self, *given):
        opened.append(given)
        return open_image(self, *given)

    def stepped(self, *given, **named):
        loss = step(self, *given, **named)
        if not first_steps or first_steps[-1][1] < 0:
            first_steps.append((time.monotonic(), len(opened)))
        return loss

    ImageTransform.open, RunTrainer.training_step = opened_image, stepped


def measure(*arguments: str) -> tuple[float, int, int]:
    """Run, and return the seconds to the end of the first step, the images opened by then and in all."""
    opened.clear()
    first_steps.clear()
    started = time.monotonic()
    assert main(["pretrain", "pretrain.yaml", *arguments]) == 0
    return first_steps[0][0] - started, first_steps[0][1], len(opened)


def run(num_records: int, step: int) -> None:
    """Measure both and print them."""
    models = Path("models")
    write_tiny_llm(models / "llm")
    write_tiny_clip(models / "clip")
    write_data(num_records)
    write_config("pretrain.yaml", models, "captions.jsonl", output_dir="run")
    os.environ["MMTUNE_CACHE"] = str(Path("cache").resolve())
    plain = ("model.projector.standardize=false", "model.projector.initial_scale=null", "train.logging_steps=1000")
    more = f"train.max_steps={step + 5}"
    watch()
    measure(*plain, "train.max_steps=1", "train.save_steps=0", "train.output_dir=prepare")
    measure(*plain, more, f"train.save_steps={step}", "train.output_dir=run")
    go_on = (f"train.max_steps={step + 6}", "train.output_dir=run", "--resume", f"run/checkpoint-{step}")
    runs = {"fresh": (more, "train.output_dir=fresh"), "resumed": go_on}
    rows = [(name, *measure(*plain, "train.save_steps=0", *arguments)) for name, arguments in runs.items()]
    for name, seconds, at_first, in_all in rows:
        print(f"{name:8} {seconds:6.2f} s to the first step, {at_first} images opened by then, {in_all} in all")


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--step", type=int, default=5_000)
    parser.add_argument("--folder", type=Path, help="default: a temporary one")
    return parser.parse_args()


if __name__ == "__main__":
    args = parse()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        os.chdir(folder)
        run(args.records, args.step)
        os.chdir("/")
