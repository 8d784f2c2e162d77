"""What the scripts of `data_tools/` share: --help with examples, one-line mistakes, exit codes. No work on data."""

import argparse
import sys
from collections.abc import Callable, Sequence

from mmtune.errors import MMTuneError

EXIT_MISTAKE = 2
EXIT_INTERRUPTED = 130


def new_parser(name: str, description: str, example: str) -> argparse.ArgumentParser:
    """Return the parser of a script; `description` and `example` are printed as they are."""
    return argparse.ArgumentParser(
        prog=name,
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """Add `--overwrite`."""
    parser.add_argument("--overwrite", action="store_true", help="replace output that exists already")


def run_script(
    parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int], argv: Sequence[str] | None
) -> int:
    """Parse and run; return the exit code: that of `run`, 2 for a mistake of the user, 130 for Ctrl-C."""
    args = parser.parse_args(argv)
    try:
        return run(args)
    except MMTuneError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return EXIT_MISTAKE
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def at_least(least: float, kind: type = int) -> Callable[[str], float]:
    """Return an argparse type: a number that is not below `least`."""

    def number(text: str) -> float:
        value = kind(text)
        if not value >= least:  # nan too
            raise argparse.ArgumentTypeError(f"must be at least {least} (got {text})")
        return value

    number.__name__ = kind.__name__  # argparse names the type in its own message
    return number
