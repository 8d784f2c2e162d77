"""`mmtune eval`: the score of a run on a published benchmark."""

import argparse
from typing import Any

from mmtune.cli.arguments import at_least_0, at_least_1


def add(verbs: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        "eval",
        help="score a run on a published benchmark",
        description="Ask a run the questions of a benchmark, from files on the disk, and score the answers as its\n"
        "authors do, without a judge. Answers are saved as they come: the same command goes on. Under torchrun each\n"
        "process answers its share. Benchmarks: pope, mme, scienceqa, mmbench, mmbench_cn, gqa, textvqa, vqav2,\n"
        "multiple_choice, perplexity.",
        epilog="example:\n  mmtune eval runs/demo/finetune --benchmark pope --data data/pope --limit 500",
    )
    parser.add_argument("model", metavar="RUN", help="a run folder or a checkpoint")
    parser.add_argument("--benchmark", required=True, metavar="NAME", help="which one")
    parser.add_argument("--data", required=True, metavar="FOLDER", help="its files in the published layout")
    parser.add_argument("--image-folder", metavar="FOLDER", help="where the images are, if not in their usual place")
    parser.add_argument("--limit", type=at_least_1, metavar="N", help="N questions drawn at random")
    parser.add_argument("--seed", type=at_least_0, default=0, metavar="N", help="of the draw (0)")
    parser.add_argument("--output", metavar="FOLDER", help="where to write (runs/eval/RUN/NAME)")
    parser.add_argument("--instruction", metavar="TEXT", help="what stands behind each question ('': nothing)")
    parser.add_argument("--max-new-tokens", type=at_least_1, default=128, metavar="N", help="the longest answer (128)")
    parser.add_argument(
        "--batch-size", type=at_least_1, default=32, metavar="N", help="questions answered together (32)"
    )
    parser.add_argument("--overwrite", action="store_true", help="drop answers that are there and start anew")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Evaluate."""
    from pathlib import Path

    from rich.console import Console

    from mmtune.evaluate.benchmarks.report import REPORT_FILE, print_report
    from mmtune.evaluate.benchmarks.run import Evaluation, evaluate

    wanted = Evaluation(
        run=Path(args.model),
        name=args.benchmark,
        data=Path(args.data),
        output=None if args.output is None else Path(args.output),
        image_folder=None if args.image_folder is None else Path(args.image_folder),
        limit=args.limit,
        seed=args.seed,
        batch_size=args.batch_size,
        max_new_tokens=args.max_new_tokens,
        instruction=args.instruction,
        overwrite=args.overwrite,
    )
    report = evaluate(wanted)
    if report is None:
        return 0
    console = Console()
    print_report(report, console)
    console.print(f"\nAnswers and report: {(wanted.folder / REPORT_FILE).resolve()}", soft_wrap=True, highlight=False)
    return 0
