"""`mmtune data check|stats`: what is wrong with the data, and what is in it, before a model loads."""

import argparse
from typing import Any

from mmtune.cli.data_source import add_source, source_config, source_reader

DEFAULT_REPORT = "data_check.jsonl"
EXIT_BAD_DATA = 2


def add(verbs: Any) -> None:
    """Add the verb and its two actions."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        "data",
        help="check the data of a config, or count what is in it",
        description="Check the data of a config, or count what is in it. Loads no model.",
        epilog="example:\n  mmtune data check configs/demo/finetune.yaml\n"
        "  mmtune data stats my_data.json --png lengths.png",
    )
    actions = parser.add_subparsers(dest="action", metavar="check|stats", required=True)
    check = actions.add_parser(
        "check",
        help="read every record and open every image",
        description="Read every record and open every image. Exit code 0: all can be trained; 2: something is wrong.\n"
        "What passed is remembered: the next check and the training that follows take seconds.",
        epilog="example:\n  mmtune data check llava_v1_5_mix665k.json --image-folder data/images",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_source(check)
    check.add_argument(
        "--images", choices=("decode", "header", "none"), help="how far images are opened (a config says; else decode)"
    )
    check.add_argument(
        "--report", default=DEFAULT_REPORT, metavar="FILE", help=f"where findings are listed ({DEFAULT_REPORT})"
    )
    check.add_argument("--json", action="store_true", help="print the summary as one JSON object")
    stats = actions.add_parser(
        "stats",
        help="lengths, supervised tokens, images, steps to expect",
        description="Count samples, tokens, supervised tokens, images and the optimizer steps to expect.\n"
        "Images are not opened.",
        epilog="example:\n  mmtune data stats configs/demo/finetune.yaml --png lengths.png",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_source(stats)
    stats.add_argument("--png", metavar="FILE", help="draw the histogram of lengths")
    stats.add_argument("--json", action="store_true", help="print the figures as one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check or count."""
    from mmtune.errors import ConfigError
    from mmtune.schema_stream import is_streamed

    config = source_config(args)
    if is_streamed(config.data):
        raise ConfigError("data.train", "a stream is checked while it is read. Leave stream out to check it whole.")
    reader = source_reader(args, config)
    return _check(args, config, reader) if args.action == "check" else _stats(args, config, reader)


def _check(args: argparse.Namespace, config: Any, reader: Any) -> int:
    import json
    from pathlib import Path

    from rich.console import Console

    from mmtune.evaluate.data_check import check_data
    from mmtune.evaluate.data_report import check_table

    config.data.check_images = args.images or config.data.check_images
    summary = check_data(config, reader, Path(args.report))
    num_listed = summary["num_listed"]
    if args.json:
        print(json.dumps(summary))
    else:
        console = Console(soft_wrap=True)
        for line in check_table(summary):
            console.print(line, highlight=False)
        if num_listed:
            console.print(f"{num_listed} findings are listed in {args.report}", highlight=False)
    return EXIT_BAD_DATA if summary["num_bad_records"] else 0


def _stats(args: argparse.Namespace, config: Any, reader: Any) -> int:
    import json
    from pathlib import Path

    from rich.console import Console

    from mmtune.build_data import build_dataset, packed, require_good
    from mmtune.evaluate.data_report import data_stats, plot_lengths, stats_lines
    from mmtune.progress import Bars
    from mmtune.schema_train import with_whole_batches
    from mmtune.training.held_out import share_held_out
    from mmtune.training.steps import num_batches_per_epoch, num_optimizer_steps

    config.data.check_images, config.data.on_bad_record = "none", "skip"
    with Bars() as bars:
        dataset, report = build_dataset(config, reader, bars)
    require_good(config.data, dataset, report, "")
    if config.data.validation_fraction is not None:
        dataset = share_held_out(config, dataset)[0]
    rows, config = packed(config, dataset), with_whole_batches(config)
    num_batches = num_batches_per_epoch(config, rows)
    figures = data_stats(config, dataset, rows, report, num_batches, num_optimizer_steps(config, num_batches))
    if args.png is not None:
        plot_lengths(dataset.lengths, config.data.max_length, Path(args.png))
    if args.json:
        print(json.dumps(figures))
    else:
        console = Console(soft_wrap=True)
        for line in stats_lines(figures):
            console.print(line, highlight=False, markup=False)
    return 0
