"""`mmtune plan`: what a run needs in memory, on disk and in steps, before anything is downloaded or loaded."""

import argparse
from typing import Any

from mmtune.cli.arguments import gib
from mmtune.cli.data_source import add_verb_of_config, named_config


def add(verbs: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        "plan",
        help="say what a config needs in memory, and what to change if it does not fit",
        description="Say what a config needs in memory, on disk and in steps. The model is built from its config\n"
        "alone: no weights are read and nothing is downloaded. Data that is here is prepared and kept for the run.",
        epilog="example:\n  mmtune plan finetune/llava_internlm2_1_8b_665k_8gb --gpu-memory 8\n"
        "  mmtune plan configs/demo/finetune.yaml train.device=cpu --probe",
    )
    parser.add_argument("config", metavar="CONFIG", help="a YAML file, or a name of `mmtune configs list`")
    parser.add_argument("overrides", nargs="*", metavar="section.name=value", help="set a key of the config")
    parser.add_argument(
        "--gpu-memory", type=gib, metavar="GIB", help="plan for a card of this size (the card that is here)"
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

    report = plan_run(config, gpu_memory=args.gpu_memory, reads_data=not args.no_data, probes=args.probe)
    if args.json:
        print(json.dumps({"verb": verb} | report.values()))
    else:
        print("\n".join(report_lines(report)))
    return 0
