"""Types of command line arguments, and the packages that a verb needs."""

import argparse
from collections.abc import Sequence


def at_least_1(text: str) -> int:
    """Read a whole number from 1."""
    return _at_least(text, 1)


def at_least_0(text: str) -> int:
    """Read a whole number from 0."""
    return _at_least(text, 0)


def temperature(text: str) -> float:
    """Read a number from 0."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be 0 or more (got {text})")
    return value


def probability(text: str) -> float:
    """Read a number above 0, up to 1."""
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most 1 (got {text})")
    return value


def above_0(text: str) -> float:
    """Read a number above 0."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be above 0 (got {text})")
    return value


def port(text: str) -> int:
    """Read the number of a port; 0 stands for a free one."""
    value = _at_least(text, 0)
    if value > 65535:
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to 65535 (got {text})")
    return value


def _at_least(text: str, lowest: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = lowest - 1
    if value < lowest:
        raise argparse.ArgumentTypeError(f"must be a whole number, {lowest} or more (got {text})")
    return value


def gib(text: str) -> float:
    """Read a size in GiB, above 0."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of GiB above 0 (got {text})")
    return value


def require_packages(verb: str, packages: Sequence[str], command: str) -> None:
    """Hold that what a verb needs beside the main path is installed; nothing is imported.

    Args:
        verb: that needs it.
        packages: by the names they are imported by.
        command: that installs them.

    Raises:
        ConfigError: one is not.
    """
    from importlib.util import find_spec

    from mmtune.errors import ConfigError

    for package in packages:
        if find_spec(package) is None:
            raise ConfigError(f"mmtune {verb}", f"needs {package}, which is not installed. Run: {command}")
