"""`mmtune merge`: several runs become one."""

import argparse
from typing import Any

from mmtune.cli.arguments import at_least_1, probability

COMBINATIONS = (
    *("cat", "linear", "svd", "ties", "ties_svd", "dare_linear", "dare_ties", "dare_linear_svd", "dare_ties_svd"),
    *("magnitude_prune", "magnitude_prune_svd"),
)


def add(verbs: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        "merge",
        help="make one run of several, with weights",
        description="Merge the adapters of runs on one base model by PEFT's add_weighted_adapter, and average their\n"
        "projectors. The result is a run folder: chat, compare, export and init_from take it.\n"
        "  cat     exactly the weighted sum of what the adapters add; the ranks add up (LoRA's default)\n"
        "  svd     that sum, cut to a rank\n"
        "  linear  sums A and B apart, at the same rank: rough, and the one way for IA3\n"
        "  ties, dare_*, magnitude_prune*  drop values, so that adapters disturb each other less",
        epilog="example:\n  mmtune merge runs/birds runs/cars --weights 0.7 0.3 --output runs/merged",
    )
    parser.add_argument("folders", nargs="+", metavar="RUN", help="run folders, or checkpoints in them")
    parser.add_argument("--weights", nargs="+", type=float, metavar="W", help="one a run (all the same, in sum 1)")
    parser.add_argument("-o", "--output", required=True, metavar="FOLDER", help="the run folder to write")
    parser.add_argument(
        "--combination", choices=COMBINATIONS, metavar="NAME",
        help=f"PEFT's combination_type: {', '.join(COMBINATIONS)} (cat for LoRA, linear for IA3)",
    )  # fmt: skip
    parser.add_argument(
        "--density", type=probability, metavar="D", help="share of the values kept, for ties, dare and magnitude_prune"
    )
    parser.add_argument("--svd-rank", type=at_least_1, metavar="R", help="rank of the result, for svd (the largest)")
    parser.add_argument(
        "--majority-sign-method", choices=("total", "frequency"), help="how ties decides on signs (total)"
    )
    parser.add_argument("--llm", metavar="PATH", help="where the base language model is now, if it moved")
    parser.add_argument("--vision", metavar="PATH", help="where the vision encoder is now, if it moved")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Merge."""
    from mmtune.merge import merge_runs
    from mmtune.models.combining import Combination

    how = Combination(args.combination, args.density, args.svd_rank, args.majority_sign_method)
    print(merge_runs(args.folders, args.output, args.weights, how, llm=args.llm, vision=args.vision))
    return 0
