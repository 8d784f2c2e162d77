"""`mmtune convert xtuner-config`: a config of XTuner becomes one of ours."""

import argparse
from typing import Any

EXAMPLE = "example:\n  mmtune convert xtuner-config old_finetune.py -o finetune.yaml"


def add(verbs: Any) -> None:
    """Add the verb and its action."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        "convert",
        help="make a config from one of XTuner",
        description="Make a config from one of XTuner. Its weights need no conversion: name them as model.init_from.",
        epilog=EXAMPLE,
    )
    actions = parser.add_subparsers(dest="action", metavar="xtuner-config", required=True)
    config = actions.add_parser(
        "xtuner-config",
        help="read a Python config of XTuner, without running it, and write YAML",
        description="Read a Python config of XTuner, without running it, and write YAML. What is not carried over is\n"
        "listed, and stands in the file as comments.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    config.add_argument("file", metavar="FILE.py", help="a config of XTuner 0.1: LLaVA or supervised finetuning")
    config.add_argument("-o", "--output", metavar="FILE.yaml", help="the file to write; without it YAML is printed")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Convert, and say what was not carried over."""
    from pathlib import Path

    from mmtune.convert.xtuner_config import convert_xtuner_config, to_text
    from mmtune.errors import ConfigError

    source = Path(args.file)
    converted = convert_xtuner_config(source)
    if args.output is None:
        print(to_text(converted, source, f"{source.stem}.yaml"), end="")
        return 0
    target = Path(args.output)
    if target.exists():
        raise ConfigError(target, "exists already. Name a new file, or delete it first.")
    try:
        target.write_text(to_text(converted, source, args.output), encoding="utf-8")
    except OSError as error:
        message = f"cannot be written: {error.strerror}. Name a file in a folder that exists."
        raise ConfigError(target, message) from None
    for note in converted.notes:
        print(f"not carried over: {note}")
    print(f"wrote {target}; run it with: mmtune {converted.verb} {target}")
    return 0
