"""`mmtune doctor`: what is here, what is missing for which feature, and the command that mends it."""

import argparse
from typing import Any

EXIT_BROKEN = 1


def add(verbs: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        "doctor",
        help="say what of mmtune works here, what is missing, and the command that mends it",
        description="Look at versions, devices, memory, disks, the packages of each feature and known traps.\n"
        "Libraries are imported in a process of their own; nothing is fetched or changed.\n"
        "Exit code 0: the main path works; 1: something that it needs is broken.",
        epilog="example:\n  mmtune doctor\n  mmtune doctor --json > doctor.json",
    )
    parser.add_argument("--json", action="store_true", help="print the report as one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Look and report."""
    import json

    from rich.console import Console
    from rich.text import Text

    from mmtune.errors import ConfigError

    try:
        from mmtune.doctor.report import examine, last_line, lines_of, values_of, works
    except ModuleNotFoundError as error:
        message = "is not installed, and `mmtune doctor` reads versions with it."
        raise ConfigError(error.name, f"{message} Run: pip install {error.name}") from None

    findings = []

    def found() -> Any:
        for finding in examine():
            findings.append(finding)
            yield finding

    if args.json:
        print(json.dumps(values_of([*found()]), ensure_ascii=False))
    else:
        console = Console()
        styles = {"note": "yellow", "missing": "cyan", "broken": "bold red", "ok": "green"}
        for state, line in lines_of(found()):
            text = Text(line, "bold" if line.startswith("\n") else "")
            text.stylize(styles.get(state, ""), 0, 10)
            console.print(text, soft_wrap=True)
        console.print(f"\n{last_line(findings)}", soft_wrap=True, highlight=False, markup=False)
    return 0 if works(findings) else EXIT_BROKEN
