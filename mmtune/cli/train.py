"""`mmtune pretrain`, `mmtune finetune` and `mmtune sft`: one training path with three sets of defaults."""

import argparse
from pathlib import Path
from typing import Any

VERBS = {
    "pretrain": (
        "train the projector on image-caption pairs",
        "mmtune pretrain configs/demo/pretrain.yaml train.output_dir=runs/captions",
    ),
    "finetune": (
        "train the projector and the language model on dialogues about images",
        "mmtune finetune configs/demo/finetune.yaml model.adapter.r=16 train.output_dir=runs/dialogues",
    ),
    "sft": (
        "train the language model on text",
        "mmtune sft my_sft.yaml train.learning_rate=1e-4",
    ),
}


def add(verbs: Any) -> None:
    """Add the three verbs."""
    for name, (summary, example) in VERBS.items():
        parser: argparse.ArgumentParser = verbs.add_parser(
            name, help=summary, description=f"{summary.capitalize()}.", epilog=f"example:\n  {example}"
        )
        parser.add_argument("config", metavar="CONFIG", help="a YAML file, or a name of `mmtune configs list`")
        parser.add_argument("overrides", nargs="*", metavar="section.name=value", help="set a key of the config")
        how = parser.add_mutually_exclusive_group()
        how.add_argument(
            "--resume", nargs="?", const=True, default=False, metavar="CHECKPOINT",
            help="continue from CHECKPOINT, or from the newest complete one",
        )  # fmt: skip
        how.add_argument("--overwrite", action="store_true", help="delete what the output folder holds")
        parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train."""
    from mmtune.config import load_config
    from mmtune.errors import EndedElsewhere, MMTuneError
    from mmtune.processes import local_rank

    if isinstance(args.resume, str) and "=" in args.resume and not Path(args.resume).exists():
        args.overrides, args.resume = [*args.overrides, args.resume], True  # `--resume train.max_steps=200`
    try:
        config = load_config(args.config, args.overrides, args.verb)
    except MMTuneError as error:
        if local_rank():  # the first process of this machine says the same
            raise EndedElsewhere(str(error)) from error
        raise
    from mmtune.training.run import train

    train(config, args.verb, resume=args.resume, overwrite=args.overwrite)
    return 0
