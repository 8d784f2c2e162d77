#!/usr/bin/env python3
"""Writes a data file and its images as WebDataset tar shards."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mmtune.data.makers.record_files import RecordWriter
from mmtune.data.makers.script import add_overwrite, at_least, new_parser, run_script
from mmtune.data.makers.webdataset_shards import check_shards, write_shards
from mmtune.errors import DataError

MEGABYTE = 1_000_000
DESCRIPTION = """Write a JSON or JSON lines file and its images as WebDataset shards, tar files named PREFIX-000000.tar.
A sample is 00000000.json, the record, with 00000000.jpg, or 00000000.0.jpg, 00000000.1.jpg where `image` is a list;
`image` then names these, and `source_image` what it named before. Images are copied unchanged, text has the json
alone, and the same data gives the same bytes."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; returns 0, or 2 for a mistake or a difference that --check found."""
    example = "python data_tools/to_webdataset.py -i mine.json --image-folder images --output-folder shards --check"
    parser = new_parser("to_webdataset", DESCRIPTION, example)
    parser.add_argument("-i", "--input", required=True, type=Path, metavar="FILE", help="a .json or .jsonl file")
    parser.add_argument("--output-folder", required=True, type=Path, metavar="DIR", help="made where it is missing")
    parser.add_argument(
        "--image-folder", type=Path, metavar="DIR", help="where images are; default: the folder of the input"
    )
    parser.add_argument("--prefix", default="shard", metavar="NAME", help="how shards are called (default shard)")
    parser.add_argument(
        "--shard-size", type=at_least(0.001, float), default=500, metavar="MB", help="of a shard at most (default 500)"
    )
    parser.add_argument(
        "--shard-records", type=at_least(1), default=10_000, metavar="N", help="of a shard at most (default 10000)"
    )
    parser.add_argument(
        "--on-bad-record",
        choices=("error", "skip"),
        default="error",
        help="skip: leave out records that are bad or miss an image, and list them in PREFIX.skipped.jsonl",
    )
    parser.add_argument("--check", action="store_true", help="read the shards again and compare every byte")
    add_overwrite(parser)
    return run_script(parser, run, argv)


def run(args: argparse.Namespace) -> int:
    """Write, list what was left out, check, and sum up."""
    if not args.prefix or set(args.prefix) & set("/\\*?["):
        raise DataError("--prefix", f"is no plain name (got '{args.prefix}'). Use letters, digits, - and _.")
    image_folder = args.image_folder or args.input.parent
    shards = write_shards(
        args.input,
        image_folder,
        args.output_folder,
        prefix=args.prefix,
        max_bytes=int(args.shard_size * MEGABYTE),
        max_records=args.shard_records,
        skip_bad_records=args.on_bad_record == "skip",
        overwrite=args.overwrite,
    )
    skipped_path = args.output_folder / f"{args.prefix}.skipped.jsonl"
    skipped_path.unlink(missing_ok=True)
    if shards.skipped:
        with RecordWriter(skipped_path) as writer:
            for place, reason in shards.skipped:
                writer.write({"place": place, "reason": reason})
    if not shards.num_written:
        raise DataError(args.input, f"all {shards.num_read} records are bad; see {skipped_path}. Mend the data.")
    listed = f", listed in {skipped_path}" if shards.skipped else ""
    print(
        f"to_webdataset: {shards.num_read} records = {shards.num_written} with {shards.num_images} images in "
        f"{len(shards.paths)} shards + {len(shards.skipped)} left out{listed}"
    )
    if args.check:
        print(f"checked: {check_shards(shards, args.input, image_folder)} records and their images are unchanged")
    return 0


if __name__ == "__main__":
    sys.exit(main())
