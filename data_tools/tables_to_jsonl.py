#!/usr/bin/env python3
"""Turns question-answer tables, or XTuner's conversation files, into messages records."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from mmtune.data.makers.record_files import RecordWriter, image_folder_note
from mmtune.data.makers.script import add_overwrite, new_parser, run_script
from mmtune.data.makers.tables import Columns, Converted, rows_to_records, xtuner_to_records
from mmtune.errors import ConfigError, DataError

NUM_SHOWN = 20
DESCRIPTION = """Turn a table of questions and answers (.xlsx, .csv, .tsv) into messages records, one for each row.
The first row names the columns. Rows without a question or an answer are counted, and listed in OUTPUT's name with
.skipped.jsonl. --from xtuner reads {"conversation": [{"system", "input", "output"}]} files instead of tables."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; returns 0, or 2 for a mistake."""
    example = "python data_tools/tables_to_jsonl.py -i qa.xlsx -o qa.jsonl --question question --answer answer"
    parser = new_parser("tables_to_jsonl", DESCRIPTION, example)
    parser.add_argument("-i", "--input", required=True, type=Path, metavar="FILE", help=".xlsx, .csv, .tsv or .json")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FILE", help="the .jsonl or .json to write")
    parser.add_argument("--from", dest="source", choices=("table", "xtuner"), default="table", help="what FILE is")
    parser.add_argument("--question", metavar="COL", help="the column of questions")
    parser.add_argument("--answer", metavar="COL", help="the column of answers")
    system = parser.add_mutually_exclusive_group()
    system.add_argument("--system", metavar="TEXT", help="a system message for every row")
    system.add_argument("--system-column", metavar="COL", help="the column of system messages")
    parser.add_argument("--image", metavar="COL", help="the column of image paths; a row without one is text")
    parser.add_argument("--sheet", metavar="NAME", help="the sheet of a workbook that has several")
    parser.add_argument("--encoding", default="utf-8", help="of a .csv or .tsv file (default utf-8)")
    add_overwrite(parser)
    return run_script(parser, run, argv)


def _converted(args: argparse.Namespace) -> Iterator[Converted]:
    given = {"--question": args.question, "--answer": args.answer, "--system": args.system, "--image": args.image}
    given |= {"--system-column": args.system_column, "--sheet": args.sheet}
    if args.source == "xtuner":
        unused = [option for option, value in given.items() if value is not None]
        if unused:
            raise ConfigError(
                unused[0], "has no meaning for --from xtuner, whose records name their parts. Leave it out."
            )
        return xtuner_to_records(args.input)
    if args.question is None or args.answer is None:
        raise ConfigError("--question, --answer", "a table needs both. Name the columns of questions and answers.")
    columns = Columns(args.question, args.answer, args.system_column, args.image, args.system)
    return rows_to_records(args.input, columns, sheet=args.sheet, encoding=args.encoding)


def run(args: argparse.Namespace) -> int:
    """Convert, list what was left out, and sum up."""
    skipped_path = args.output.with_name(args.output.stem + ".skipped.jsonl")
    num_rows = 0
    with (
        RecordWriter(args.output, source=args.input, overwrite=args.overwrite) as writer,
        RecordWriter(skipped_path, overwrite=True) as skipped,
    ):
        for converted in _converted(args):
            num_rows += 1
            if converted.record is not None:
                writer.write(converted.record)
                continue
            skipped.write({"line": converted.line, "reason": converted.reason})
            if skipped.num_records <= NUM_SHOWN:
                print(f"{args.input}:{converted.line}: {converted.reason}", file=sys.stderr)
        if not writer.num_records:
            raise DataError(args.input, f"no usable record among {num_rows}. Its first row names the columns.")
    what = "records" if args.source == "xtuner" else "rows"
    counts = f"{num_rows} {what} = {writer.num_records} records in {args.output} + {skipped.num_records} left out"
    if skipped.num_records:
        print(f"tables_to_jsonl: {counts}, listed in {skipped_path}")
    else:
        skipped_path.unlink()
        print(f"tables_to_jsonl: {counts}")
    if args.image and (note := image_folder_note(args.input, args.output)):
        print(note)
    return 0


if __name__ == "__main__":
    sys.exit(main())
