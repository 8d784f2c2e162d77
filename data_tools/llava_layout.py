#!/usr/bin/env python3
"""Checks or links the image folders of LLaVA's data sets."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from mmtune.data.makers.llava_layout import Survey, make_link, survey_images, write_fixed
from mmtune.data.makers.llava_report import CONFIG_NOTE, advice, summary, table, to_json
from mmtune.data.makers.record_files import cannot_be_written, refuse_existing
from mmtune.data.makers.script import EXIT_MISTAKE, add_overwrite, new_parser, run_script

DESCRIPTION = """Count which images of a LLaVA data file (llava_v1_5_mix665k.json, blip_laion_cc_sbu_558k.json or any
other) are in the image folder, and say what to download and where to unpack it. Nothing is downloaded and no image is
opened. The exit code is 2 where an image is missing."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; returns 0, or 2 for a mistake or a missing image."""
    example = "python data_tools/llava_layout.py --json data/llava_v1_5_mix665k.json --image-folder data/images"
    parser = new_parser("llava_layout", DESCRIPTION, example)
    parser.add_argument("--json", required=True, type=Path, metavar="FILE", help="a .json or .jsonl data file")
    parser.add_argument("--image-folder", required=True, type=Path, metavar="DIR", help="what its paths start from")
    parser.add_argument(
        "--link",
        action="append",
        default=[],
        type=name_and_path,
        metavar="NAME=PATH",
        help="first make DIR/NAME (such as coco or vg/VG_100K) a link to a folder elsewhere; may be repeated",
    )
    parser.add_argument(
        "--write-fixed",
        type=Path,
        metavar="OUT",
        help="write the records with the suffixes that the files have: OCR-VQA's .gif where the JSON says .jpg",
    )
    parser.add_argument("--json-report", type=Path, metavar="FILE", help="write the counts and first lacking images")
    add_overwrite(parser)
    return run_script(parser, run, argv)


def name_and_path(text: str) -> tuple[str, Path]:
    """Read `NAME=PATH`."""
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise argparse.ArgumentTypeError(f"must be NAME=PATH, such as coco=/data/coco (got {text})")
    return name, Path(path)


def run(args: argparse.Namespace) -> int:
    """Link, look, fix, and tell."""
    for name, target in args.link:
        print(f"link: {make_link(args.image_folder, name, target)}")
    if args.write_fixed:
        refuse_existing(args.write_fixed, args.overwrite)
    survey = survey_images(args.json, args.image_folder)
    print(table(survey))
    for line in advice(survey, args.image_folder):
        print(line)
    if args.link or any(group.is_linked for group in survey.groups.values()):
        print(CONFIG_NOTE)
    if args.write_fixed:
        _fix(args, survey)
    if args.json_report:
        try:
            report = to_json(survey, args.image_folder)
            args.json_report.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        except OSError as error:
            raise cannot_be_written(args.json_report, error) from None
    print(summary(survey))
    total = survey.total
    return EXIT_MISTAKE if total.num_lacking or (total.num_other_suffix and not args.write_fixed) else 0


def _fix(args: argparse.Namespace, survey: Survey) -> None:
    written, changed = write_fixed(args.json, args.write_fixed, survey.renames, overwrite=args.overwrite)
    print(f"fixed: {survey.num_records} records = {written} in {args.write_fixed}, {changed} of them changed")


if __name__ == "__main__":
    sys.exit(main())
