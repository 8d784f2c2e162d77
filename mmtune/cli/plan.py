"""`mmtune plan`: what a run needs in memory, on disk and in steps, before anything is downloaded or loaded."""

import argparse
from typing import Any

from mmtune.cli.arguments import above_0, at_least_1, gib, probability
from mmtune.cli.data_source import add_verb_of_config, named_config


def add(verbs: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        "plan",
        help="say what a config needs in memory, and what to change if it does not fit",
        description="Say what a config needs in memory, on disk and in steps. The model is built from its config\n"
        "alone: no weights are read and nothing is downloaded. Data that is here is prepared and kept for the run.",
        epilog="example:\n  mmtune plan finetune/llava_internlm2_1_8b_665k_8gb --gpu-memory 8\n"
        "  mmtune plan configs/demo/finetune.yaml train.device=cpu --probe\n"
        "  mmtune plan sft/internlm2_1_8b_full --gpus 8 --gpu a100-40gb --tokens-per-second 9000",
    )
    parser.add_argument("config", metavar="CONFIG", help="a YAML file, or a name of `mmtune configs list`")
    parser.add_argument("overrides", nargs="*", metavar="section.name=value", help="set a key of the config")
    card = parser.add_mutually_exclusive_group()
    card.add_argument(
        "--gpu-memory", type=gib, metavar="GIB", help="plan for a card of this size (the card that is here)"
    )
    card.add_argument("--gpu", metavar="NAME", help="plan for a card of this name, such as rtx-4090 or a100-80gb")
    parser.add_argument("--gpus", type=at_least_1, default=1, metavar="N", help="of so many cards (1)")
    speed = parser.add_mutually_exclusive_group()
    speed.add_argument(
        "--tokens-per-second", type=above_0, metavar="RATE", help="of one card, measured: says how long the run takes"
    )
    speed.add_argument("--bench", metavar="FILE", help="the same, from a file of `mmtune bench --json`")
    parser.add_argument(
        "--efficiency", type=probability, metavar="SHARE", help="of several cards: rate of N / N x rate of one (0.9)"
    )
    parser.add_argument("--no-data", action="store_true", help="assume full rows of data.max_length; read no data")
    parser.add_argument(
        "--probe", action="store_true", help="load the model, run the longest batch here, and say how long a run takes"
    )
    add_verb_of_config(parser)
    parser.add_argument("--json", action="store_true", help="print the plan as one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Plan. The exit code is 0 whether it fits or not."""
    import json

    config, verb = named_config(args.config, args.overrides, args.verb_of_config)
    from mmtune.training.planning import plan_run, report_lines

    report = plan_run(
        config,
        gpu_memory=args.gpu_memory,
        reads_data=not args.no_data,
        probes=args.probe,
        card=args.gpu,
        rate=_rate(args),
        num_devices=args.gpus,
    )
    if args.json:
        print(json.dumps({"verb": verb} | report.values()))
    else:
        print("\n".join(report_lines(report)))
    return 0


def _rate(args: argparse.Namespace) -> Any:
    """The rate that the arguments give; None without one."""
    from pathlib import Path

    from mmtune.training.plan_time import EFFICIENCY, Rate, bench_rate

    if args.bench is not None:
        tokens, device = bench_rate(Path(args.bench))
        source = f"measured on {device}"
    elif args.tokens_per_second is not None:
        tokens, source = args.tokens_per_second, "given"
    else:
        return None
    share = 1.0 if args.gpus == 1 else args.efficiency or EFFICIENCY
    return Rate(tokens, source, args.gpus, share)
