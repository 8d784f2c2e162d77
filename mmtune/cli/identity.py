"""`mmtune identity`: teach a model its name and its author, and see whether it is unharmed."""

import argparse
from typing import Any

from mmtune.cli.arguments import at_least_0, at_least_1

STYLES = ("plain", "friendly", "formal", "repeated")


def add(verbs: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        "identity",
        help="teach a model its name: make data, tune, compare",
        description="Teach a model who it is: make questions and answers, near misses and general questions, tune on\n"
        "them, and compare before and after on questions that were held out. A complete step is not repeated, an\n"
        "interrupted one continues.",
        epilog="example:\n  mmtune identity --name Atlas --author 'Ada Lovelace'\n"
        "  mmtune identity --name 小智 --author 李雷 --lang zh,en --model sft/identity_internlm2_1_8b"
        " --output runs/xiaozhi\n  mmtune chat runs/identity/tune",
    )
    parser.add_argument("--name", required=True, metavar="NAME", help="what the model is called")
    parser.add_argument("--author", required=True, metavar="NAME", help="who made it")
    parser.add_argument(
        "--lang", default="en", metavar="LIST", help="languages, of en and zh, such as zh,en (en: the default model's)"
    )
    parser.add_argument(
        "--style", choices=STYLES, default="plain", help="how it speaks; `repeated` shows what not to do (plain)"
    )
    parser.add_argument("--system", metavar="TEXT", help="a system message to train, compare and chat with")
    parser.add_argument(
        "--model", metavar="MODEL", help="a config of sft, whose data is replaced, or a model's name or folder"
    )
    parser.add_argument("--output", default="runs/identity", metavar="FOLDER", help="where to write (runs/identity)")
    parser.add_argument("--seed", type=at_least_0, default=0, metavar="N", help="of the data (0)")
    parser.add_argument(
        "--max-new-tokens", type=at_least_1, default=48, metavar="N", help="the longest answer compared (48)"
    )
    parser.add_argument("--overwrite", action="store_true", help="repeat complete steps whose inputs changed")
    parser.add_argument("overrides", nargs="*", metavar="section.name=value", help="set a key of the training's config")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Make, tune, compare."""
    from pathlib import Path

    from mmtune.data.makers.identity import languages_of
    from mmtune.recipe import run_steps
    from mmtune.recipe_identity import TUNE, IdentityConfig, identity_steps

    folder = Path(args.output)
    identity = IdentityConfig(args.name, args.author, list(languages_of(args.lang)), args.style, args.seed)
    steps = identity_steps(identity, folder, model=args.model, system=args.system, max_new_tokens=args.max_new_tokens)
    overrides = [f"{TUNE}.{text}" for text in args.overrides]
    run_steps({"steps": steps}, "identity", folder, overrides, overwrite=args.overwrite)
    print(f"Ask it: mmtune chat {folder / TUNE}")
    return 0
