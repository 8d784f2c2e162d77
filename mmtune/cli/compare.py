"""`mmtune compare`: the same questions to several models."""

import argparse
from typing import Any

from mmtune.cli.arguments import at_least_1


def add(verbs: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        "compare",
        help="ask several models the same questions",
        description="Ask models the same questions; print the answers and write report.json and page.html. Greedy\n"
        "decoding. `base` stands for the untrained language model, asked without image tokens.",
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
        default=[],
        metavar="NAME",
        help="ask the last model again with `blank` or `shuffled` images",
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
    from pathlib import Path

    from rich.console import Console

    from mmtune.chat.generate import Decoding
    from mmtune.errors import ConfigError
    from mmtune.evaluate.compare import compare_models
    from mmtune.evaluate.questions import read_questions
    from mmtune.evaluate.report import PAGE_FILE, build_report, print_answers, print_report, write_report

    folder = Path(args.output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"cannot write to {folder.resolve()}: {error.strerror}. Name another folder."
        raise ConfigError("--output", message) from None
    questions = [q for path in args.questions for q in read_questions(path, args.image_folder)[: args.limit]]
    comparison = compare_models(
        args.models,
        questions,
        controls=args.controls,
        decoding=Decoding(max_new_tokens=args.max_new_tokens),
        batch_size=args.batch_size,
    )
    report = build_report(comparison, args.models)
    write_report(report, folder)
    console = Console()
    print_answers(report, console)
    console.print()
    print_report(report, console)
    console.print(f"\nThe page with all answers: {(folder / PAGE_FILE).resolve()}", soft_wrap=True, highlight=False)
    return 0
