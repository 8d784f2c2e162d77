"""`mmtune compare`: the same questions to several models."""

import argparse
import sys
from pathlib import Path
from typing import Any

from mmtune.cli.arguments import at_least_1

EXIT_LEFT_OUT = 1


def add(verbs: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        "compare",
        help="ask several models the same questions",
        description="Ask models the same questions; print the answers and write page.html, report.md and report.json.\n"
        "Greedy decoding. `base` stands for the untrained language model, asked without image tokens. The last\n"
        "model is also asked with blank and with swapped images, and answers that only repeat its training data\n"
        "are marked. Exit code 1: some questions could not be asked; they are listed, the others are answered.",
        epilog="example:\n  mmtune compare base runs/demo/pretrain runs/demo/finetune"
        " --questions runs/demo/data/heldout_questions.json --limit 20",
    )
    parser.add_argument("models", nargs="+", metavar="RUN", help="run folders from before to after, or `base`")
    parser.add_argument(
        "--questions", nargs="+", required=True, metavar="FILE", help="JSON lists or JSON lines of questions"
    )
    parser.add_argument("--image-folder", metavar="FOLDER", help="what image paths are relative to (the file's folder)")
    parser.add_argument(
        "--controls",
        nargs="*",
        default=["blank", "shuffled"],
        metavar="NAME",
        help="wrong images that the last model is asked with too: `blank`, `shuffled`; no name: none (both)",
    )
    parser.add_argument(
        "--num-control-questions",
        type=at_least_1,
        metavar="N",
        help="ask with wrong images on N questions only, spread evenly (all)",
    )
    parser.add_argument("--limit", type=at_least_1, metavar="N", help="the first N questions of each file")
    parser.add_argument("--output", default="runs/compare", metavar="FOLDER", help="where to write (runs/compare)")
    parser.add_argument("--max-new-tokens", type=at_least_1, default=64, metavar="N", help="the longest answer (64)")
    parser.add_argument(
        "--batch-size", type=at_least_1, default=32, metavar="N", help="questions answered together (32)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compare."""
    from rich.console import Console

    from mmtune.chat.generate import Decoding
    from mmtune.durable import write_errors_named
    from mmtune.evaluate.compare import compare_models
    from mmtune.evaluate.report import PAGE_FILE, build_report, write_report
    from mmtune.evaluate.report_tables import print_answers, print_report
    from mmtune.plain_text import printable

    folder = Path(args.output)
    with write_errors_named(folder, mend="Name another folder."):
        folder.mkdir(parents=True, exist_ok=True)
    questions, left_out = _questions(args)
    comparison = compare_models(
        args.models,
        questions,
        controls=args.controls,
        num_control_questions=args.num_control_questions,
        decoding=Decoding(max_new_tokens=args.max_new_tokens),
        batch_size=args.batch_size,
    )
    report = build_report(comparison, args.models, left_out=left_out)
    write_report(report, folder)
    console = Console()
    print_answers(report, console)
    console.print()
    print_report(report, console)
    console.print(f"\nThe page with all answers: {(folder / PAGE_FILE).resolve()}", soft_wrap=True, highlight=False)
    for line in report["left_out"]:
        print(printable(f"mmtune: {line}"), file=sys.stderr)
    return EXIT_LEFT_OUT if report["left_out"] else 0


def _questions(args: argparse.Namespace) -> tuple[list[Any], list[str]]:
    """The questions of all files, and a line for each one that cannot be asked."""
    from mmtune.evaluate.questions import read_good_questions

    questions, problems = [], []
    for path in args.questions:
        good, bad = read_good_questions(path, args.image_folder, args.limit)
        questions += good
        problems += bad
    if problems and not questions:
        raise problems[0]
    return questions, [str(problem) for problem in problems]
