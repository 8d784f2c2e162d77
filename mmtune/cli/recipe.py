"""`mmtune run`: the steps of a recipe, one after the other."""

import argparse
from typing import Any


def add(verbs: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        "run",
        help="run a recipe: data, pretrain, finetune, compare",
        description="Run the steps of a recipe. A complete step is not repeated, an interrupted one continues.",
        epilog="example:\n  mmtune run configs/demo.yaml\n  mmtune run demo finetune.train.seed=1 --overwrite",
    )
    parser.add_argument("recipe", metavar="RECIPE", help="a YAML file, or a name of `mmtune configs list`")
    parser.add_argument("overrides", nargs="*", metavar="STEP.section.name=value", help="set a key of a step's config")
    parser.add_argument("--overwrite", action="store_true", help="repeat complete steps whose inputs changed")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the recipe."""
    from mmtune.recipe import run_recipe

    run_recipe(args.recipe, args.overrides, overwrite=args.overwrite)
    return 0
