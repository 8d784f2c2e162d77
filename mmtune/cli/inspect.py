"""`mmtune inspect`: see which tokens will be trained."""

import argparse
from typing import Any

from mmtune.cli.arguments import at_least_1
from mmtune.cli.data_source import add_source, source_config, source_reader


def add(verbs: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        "inspect",
        help="show samples as they will be trained",
        description="Print encoded samples, supervised tokens green and all others red. Loads no language model.",
        epilog="example:\n  mmtune inspect configs/demo/finetune.yaml -n 2\n"
        "  mmtune inspect data.json --llm internlm2-chat-1_8b --template internlm2_chat --num-image-tokens 576 --json",
    )
    add_source(parser)
    parser.add_argument("-n", "--num-samples", type=at_least_1, metavar="N", help="how many (3; all with --json)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line: line, input_ids, labels, images")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Inspect."""
    from itertools import islice

    from rich.console import Console

    from mmtune.build_data import inspect_samples
    from mmtune.evaluate.inspect import sample_json, sample_text, sample_title

    config = source_config(args)
    reader = source_reader(args, config)
    limit = args.num_samples if args.num_samples is not None else None if args.json else 3
    console = Console(soft_wrap=True)
    for sample in islice(inspect_samples(config, reader), limit):
        if args.json:
            print(sample_json(sample))
        else:
            console.print(sample_title(sample), style="bold", highlight=False)
            console.print(sample_text(sample, reader.tokenizer))
    return 0
