#!/usr/bin/env python3
"""Makes LLaVA records and a questions file from the easy-VQA data set (coloured shapes) of the `easy-vqa` package."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from mmtune.data.makers.easy_vqa import make_easy_vqa
from mmtune.data.makers.script import new_parser, run_script

DESCRIPTION = """Write captions.json and train.json (LLaVA records: dialogues about one image each),
test_questions.json (for `mmtune compare`) and their images. The data set comes with `pip install easy-vqa`; nothing
is downloaded here. The same arguments give the same bytes."""
EXAMPLE = "python data_tools/easy_vqa.py --output-folder data/easy_vqa --validation-images 400"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; returns 0, or 2 for a mistake."""
    parser = new_parser("easy_vqa", DESCRIPTION, EXAMPLE)
    parser.add_argument("--output-folder", required=True, type=Path, metavar="DIR", help="made where it is missing")
    parser.add_argument(
        "--seed", type=int, default=0, help="draws the order of the questions, and which are left out (0)"
    )
    parser.add_argument("--train-images", type=int, metavar="N", help="the first N training images (all 4,000)")
    parser.add_argument("--test-images", type=int, metavar="N", help="the first N test images (all 1,000)")
    parser.add_argument(
        "--validation-images",
        type=int,
        default=0,
        metavar="N",
        help="keep the last N training images for validation_questions.json, to choose settings by (0)",
    )
    parser.add_argument(
        "--with-evidence",
        action="store_true",
        help='trained answers say what is seen first: "a red circle, blue is absent, so no"',
    )
    parser.add_argument(
        "--max-questions-per-record",
        type=int,
        metavar="N",
        help="cut dialogues into records of at most N questions, 1 asks each alone (all about an image in one record)",
    )
    parser.add_argument(
        "--balance-verdicts",
        action="store_true",
        help="leave yes/no questions out of train.json until each wording has as many yes as no",
    )
    return run_script(parser, run, argv)


def run(args: argparse.Namespace) -> int:
    """Make the files and count what is in them."""
    paths = make_easy_vqa(
        args.output_folder,
        seed=args.seed,
        num_train_images=args.train_images,
        num_test_images=args.test_images,
        num_validation_images=args.validation_images,
        with_evidence=args.with_evidence,
        max_questions_per_record=args.max_questions_per_record,
        balance_verdicts=args.balance_verdicts,
    )
    for path in paths.values():
        print(f"easy_vqa: {len(json.loads(path.read_text(encoding='utf-8')))} records written to {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
