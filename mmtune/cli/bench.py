"""`mmtune bench`: how fast a config trains here, and what its time is made of."""

import argparse
from typing import Any

from mmtune.cli.arguments import at_least_0, at_least_1
from mmtune.cli.data_source import add_verb_of_config, named_config


def add(verbs: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        "bench",
        help="measure how fast a config trains here",
        description="Train a few steps of a config on synthetic data and print rates, memory and where the time goes.\n"
        "Nothing is kept. Data and init_from of the config are not read.",
        epilog="example:\n  mmtune bench configs/demo/finetune.yaml --steps 4\n"
        "  mmtune bench finetune/llava_internlm2_1_8b_665k_24gb --random-weights --json bench.json",
    )
    parser.add_argument("config", metavar="CONFIG", help="a YAML file, or a name of `mmtune configs list`")
    parser.add_argument("overrides", nargs="*", metavar="section.name=value", help="set a key of the config")
    parser.add_argument("--steps", type=at_least_1, default=8, metavar="N", help="optimizer steps that count (8)")
    parser.add_argument("--warmup", type=at_least_0, default=2, metavar="N", help="optimizer steps before them (2)")
    parser.add_argument(
        "--random-weights",
        action="store_true",
        help="models that are not here are made of random weights in the real shape",
    )
    parser.add_argument("--turns", type=at_least_1, metavar="N", help="questions of a sample (1, 5 or 2 by verb)")
    parser.add_argument("--question-tokens", type=at_least_1, metavar="N", help="mean length of a question")
    parser.add_argument("--answer-tokens", type=at_least_1, metavar="N", help="mean length of an answer")
    add_verb_of_config(parser)
    parser.add_argument("--json", metavar="FILE", help="also write all figures to a file")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure."""
    import json
    from pathlib import Path

    from rich.console import Console

    from mmtune.errors import ConfigError

    config, verb = named_config(args.config, args.overrides, args.verb_of_config)
    target = Path(args.json) if args.json else None
    if target is not None and not target.parent.is_dir():
        raise ConfigError("--json", f"there is no folder {target.parent.resolve()}. Make it, or name another file.")

    from mmtune.benchmark.bench import bench
    from mmtune.benchmark.synthetic import SHAPES, Shape
    from mmtune.benchmark.table import print_figures

    usual = SHAPES[verb]
    shape = Shape(
        args.turns or usual.num_turns,
        args.question_tokens or usual.question_tokens,
        args.answer_tokens or usual.answer_tokens,
    )
    result = bench(
        config,
        verb,
        num_steps=args.steps,
        num_warmup_steps=args.warmup,
        shape=shape,
        random_weights=args.random_weights,
    )
    print_figures(result, Console())
    if target is not None:
        target.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0
