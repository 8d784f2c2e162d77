#!/usr/bin/env python3
"""Writes every record of a data file several times."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mmtune.data.makers.record_files import image_folder_note
from mmtune.data.makers.repeat import repeat_records
from mmtune.data.makers.script import add_overwrite, at_least, new_parser, run_script

BETTER = "No file is needed: `repeat: N` beside `path` under data.train of the config trains each record N times."
DESCRIPTION = f"""Write each record of a JSON or JSON lines file N times.
{BETTER}"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; returns 0, or 2 for a mistake."""
    parser = new_parser("repeat", DESCRIPTION, "python data_tools/repeat.py -i mine.json -o repeated.json -n 200")
    parser.add_argument("-i", "--input", required=True, type=Path, metavar="FILE", help="a .json or .jsonl file")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FILE", help="the .json or .jsonl to write")
    parser.add_argument("-n", "--times", required=True, type=at_least(1), metavar="N", help="how often each record")
    add_overwrite(parser)
    return run_script(parser, run, argv)


def run(args: argparse.Namespace) -> int:
    """Repeat and sum up."""
    done = repeat_records(args.input, args.output, args.times, overwrite=args.overwrite)
    print(f"repeat: {done.num_read} records x {args.times} = {done.num_written} written to {args.output}")
    print(BETTER)
    if note := image_folder_note(args.input, args.output):
        print(note)
    return 0


if __name__ == "__main__":
    sys.exit(main())
