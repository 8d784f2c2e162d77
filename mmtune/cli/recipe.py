"""`mmtune run`: the steps of a recipe, one after the other."""

import argparse
from typing import Any

from mmtune.cli.arguments import gib


def add(verbs: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        "run",
        help="run a recipe: check, pretrain, finetune, compare, export",
        description="Run the steps of a recipe. A step is not repeated when its output is complete and its config,\n"
        "its data files and the steps before it are unchanged; an interrupted one continues. At the end there is a\n"
        "card, README.md: data, settings, curves, scores, samples, versions.",
        epilog="example:\n  mmtune run configs/demo.yaml\n  mmtune run demo finetune.train.seed=1 --overwrite\n"
        "  mmtune run recipes/llava_internlm2_1_8b --dry-run --gpu-memory 24",
    )
    parser.add_argument("recipe", metavar="RECIPE", help="a YAML file, or a name of `mmtune configs list`")
    parser.add_argument("overrides", nargs="*", metavar="STEP.section.name=value", help="set a key of a step's config")
    parser.add_argument(
        "--from", dest="first", metavar="STEP", help="begin with this step; take those before it as they are"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="make anew what is complete but has changed inputs or damaged files"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="say what each step would do, and what trainings need; run nothing"
    )
    parser.add_argument(
        "--gpu-memory", type=gib, metavar="GIB", help="with --dry-run: plan for a card of this size (that is here)"
    )
    parser.add_argument(
        "--probe",
        action="store_true",
        help="with --dry-run: run each training's longest batch, to say how long it takes",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the recipe, or say what it would do."""
    if args.dry_run:
        from mmtune.recipe_plan import plan_lines, plan_recipe

        planned = plan_recipe(
            args.recipe, args.overrides, first=args.first, gpu_memory=args.gpu_memory, probes=args.probe
        )
        print("\n".join(plan_lines(planned, overwrite=args.overwrite)))
        return 0
    from mmtune.errors import ConfigError
    from mmtune.recipe import run_recipe

    if args.gpu_memory is not None or args.probe:
        option = "--probe" if args.probe else "--gpu-memory"
        raise ConfigError(f"command line: {option}", "it is for the plan of a recipe. Add --dry-run, or leave it out.")
    run_recipe(args.recipe, args.overrides, first=args.first, overwrite=args.overwrite)
    return 0
