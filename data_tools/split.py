#!/usr/bin/env python3
"""Splits a data file into training and held-out records, by image."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from mmtune.data.makers.record_files import cannot_be_written, image_folder_note, refuse_existing
from mmtune.data.makers.script import add_overwrite, new_parser, run_script
from mmtune.data.makers.split import Split, split_records

DESCRIPTION = """Split a JSON or JSON lines file into records to train on and records to hold out.
All records of an image, and all that share one of several images, go to the same side; records without an image go
by their first question. Writes train and held_out files with the suffix of the input, and split.json."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; returns 0, or 2 for a mistake."""
    example = "python data_tools/split.py -i mine.json --output-folder mine_split --held-out 0.05"
    parser = new_parser("split", DESCRIPTION, example)
    parser.add_argument("-i", "--input", required=True, type=Path, metavar="FILE", help="a .json or .jsonl file")
    parser.add_argument("--output-folder", required=True, type=Path, metavar="DIR", help="made where it is missing")
    parser.add_argument(
        "--held-out",
        type=share_or_number,
        default=0.05,
        metavar="SHARE|N",
        help="a share of the records such as 0.05 (the default), or a number of records",
    )
    parser.add_argument("--seed", type=int, default=0, help="draws which images are held out (default 0)")
    parser.add_argument(
        "--by-content", action="store_true", help="find one image under two names by its bytes, not by its name"
    )
    parser.add_argument(
        "--image-folder", type=Path, metavar="DIR", help="where images are; default: the folder of the input"
    )
    add_overwrite(parser)
    return run_script(parser, run, argv)


def share_or_number(text: str) -> float | int:
    """Read `0.05` as a share and `200` as a number of records."""
    is_share = "." in text
    value = float(text) if is_share else int(text)
    if not (0 < value < 1 if is_share else value >= 1):
        raise argparse.ArgumentTypeError(f"must be a share between 0.0 and 1.0, or a whole number (got {text})")
    return value


def run(args: argparse.Namespace) -> int:
    """Split, write the summary and print it."""
    folder, suffix = args.output_folder, ".jsonl" if args.input.suffix == ".jsonl" else ".json"
    train_path, held_out_path = folder / f"train{suffix}", folder / f"held_out{suffix}"
    summary_path = folder / "split.json"
    refuse_existing(summary_path, args.overwrite)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_be_written(folder, error) from None
    image_folder = (args.image_folder or args.input.parent) if args.by_content else None
    split = split_records(
        args.input,
        train_path,
        held_out_path,
        held_out=args.held_out,
        seed=args.seed,
        image_folder=image_folder,
        overwrite=args.overwrite,
    )
    asked = {"input": str(args.input), "held_out": args.held_out, "seed": args.seed, "by_content": args.by_content}
    summary_path.write_text(json.dumps(asked | asdict(split), indent=2) + "\n", encoding="utf-8")
    print_summary(split, train_path, held_out_path)
    if note := image_folder_note(args.input, train_path):
        print(note)
    return 0


def print_summary(split: Split, train_path: Path, held_out_path: Path) -> None:
    """Print what went where."""
    num_train = split.num_records - split.num_held_out
    print(f"split: {split.num_records} records = {num_train} in {train_path} + {split.num_held_out} in {held_out_path}")
    largest = f"the largest has {split.largest_group} records"
    print(f"{split.num_groups} groups, {split.num_held_out_groups} held out; {largest}")
    if split.num_twins is not None:
        print(f"{split.num_twins} image names are copies of another image")


if __name__ == "__main__":
    sys.exit(main())
