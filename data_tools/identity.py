#!/usr/bin/env python3
"""Writes data that teaches a model its name and its author."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mmtune.data.makers.identity import ALL_STYLES, HELD_OUT_OTHERS, HELD_OUT_SELF, languages_of, make_identity
from mmtune.data.makers.script import add_overwrite, at_least, new_parser, run_script

DESCRIPTION = """Write questions about the name and the author of a model with varied answers, near misses that are not
about the model, and general questions; a quarter of each is held out as questions to compare with.
`mmtune identity --name X --author Y` does this, trains and compares."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; returns 0, or 2 for a mistake."""
    parser = new_parser("identity", DESCRIPTION, "python data_tools/identity.py --name Atlas --author 'Ada Lovelace'")
    parser.add_argument("--name", required=True, metavar="NAME", help="what the model is called")
    parser.add_argument("--author", required=True, metavar="NAME", help="who made it")
    parser.add_argument("--lang", default="zh,en", metavar="LIST", help="languages, of zh and en (zh,en)")
    parser.add_argument(
        "--style", choices=ALL_STYLES, default=ALL_STYLES[0],
        help="how it speaks; `repeated` is what not to do: one answer, over and over (plain)",
    )  # fmt: skip
    parser.add_argument("--seed", type=at_least(0), default=0, metavar="N", help="of all draws (0)")
    parser.add_argument(
        "-o", "--output-folder", type=Path, default=Path("data/identity"), metavar="FOLDER", help="(data/identity)"
    )
    add_overwrite(parser)
    return run_script(parser, run, argv)


def run(args: argparse.Namespace) -> int:
    """Make the data and sum up."""
    made = make_identity(
        args.output_folder,
        name=args.name,
        author=args.author,
        languages=languages_of(args.lang),
        style=args.style,
        seed=args.seed,
        overwrite=args.overwrite,
    )
    held_out = (HELD_OUT_SELF, HELD_OUT_OTHERS)
    trained = {file: count for file, count in made.counts.items() if file not in held_out}
    files = ", ".join(f"{count} in {file}" for file, count in trained.items())
    asked = ", ".join(f"{made.counts[file]} in {file}" for file in held_out)
    num_asked = sum(made.counts[file] for file in held_out)
    print(f"identity: {sum(trained.values())} records to train ({files}) and {num_asked} held-out questions ({asked})")
    print(f"written to {args.output_folder}")
    for question in made.left_out:
        print(f"left out, since it mentions the name or the author: {question}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
