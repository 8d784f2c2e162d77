"""`mmtune configs list|show|copy`: the configs that come with the package."""

import argparse
from typing import Any


def add(verbs: Any) -> None:
    """Add the verb and its three actions."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        "configs",
        help="list, show or copy the shipped configs",
        description="List, show or copy the configs that come with mmtune.",
        epilog="example:\n  mmtune configs list\n  mmtune configs copy demo/finetune my_finetune.yaml",
    )
    actions = parser.add_subparsers(dest="action", metavar="list|show|copy", required=True)
    listing = actions.add_parser("list", help="print the names", epilog="example: mmtune configs list -p finetune")
    listing.add_argument(
        "-p", "--pattern", default="", metavar="TEXT", help="only names that hold this text, in any case"
    )
    show = actions.add_parser("show", help="print a config", epilog="example: mmtune configs show demo/finetune")
    show.add_argument("name", metavar="NAME")
    copy = actions.add_parser("copy", help="copy a config", epilog="example: mmtune configs copy demo/finetune my.yaml")
    copy.add_argument("name", metavar="NAME")
    copy.add_argument("target", metavar="FILE", help="a new file, or a folder to copy it into")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """List, show or copy."""
    from mmtune.shipped import find_config, shipped_configs, shipped_settings

    if args.action == "list":
        shipped = shipped_configs() | shipped_settings()
        found = {name: path for name, path in shipped.items() if args.pattern.lower() in name.lower()}
        width = max(map(len, found), default=0)
        for name, path in found.items():
            print(f"{name:{width}}  {_summary(path)}".rstrip())
    elif args.action == "show":
        print(find_config(args.name).read_text(encoding="utf-8"), end="")
    else:
        _copy(find_config(args.name), args.target)
    return 0


def _summary(path: Any) -> str:
    """Return the first line of a config's opening comment, or what DeepSpeed's settings split and offload."""
    if path.suffix == ".json":
        import json

        zero = json.loads(path.read_text(encoding="utf-8"))["zero_optimization"]
        places = {zero[key]["device"] for key in ("offload_optimizer", "offload_param") if key in zero}
        return (
            f"Settings of DeepSpeed: ZeRO stage {zero['stage']}{', offload to ' if places else ''}{', '.join(places)}."
        )
    first = path.read_text(encoding="utf-8").split("\n", 1)[0]
    return first.removeprefix("#").partition(" mmtune ")[0].strip() if first.startswith("#") else ""


def _copy(source: Any, target: str) -> None:
    from pathlib import Path

    from mmtune.errors import ConfigError

    path = Path(target)
    path = path / source.name if path.is_dir() else path
    if path.exists():
        raise ConfigError(path, "exists already. Name a new file, or delete it first.")
    try:
        path.write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            target, f"cannot be written: {error.strerror}. Name a file in a folder that exists."
        ) from None
    print(f"{source.name} copied to {path}")
