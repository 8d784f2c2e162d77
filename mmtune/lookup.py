"""Find a part by its name, or say which names there are."""

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

from mmtune.errors import ConfigError

T = TypeVar("T")


def nearest(name: str, names: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` for the closest of `names`, or an empty string when none is close."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return f" Did you mean '{close[0]}'?" if close else ""


def lookup(table: Mapping[str, T], name: str, what: str) -> T:
    """Return `table[name]`.

    Args:
        table: the parts by name, a dict literal in the file that holds them.
        name: what the user asked for.
        what: the config key or argument that named it, used as the place of the error.

    Raises:
        ConfigError: there is no such name; the message holds the nearest one and the list.
    """
    if name in table:
        return table[name]
    raise ConfigError(what, f"unknown name '{name}'.{nearest(name, table)} Known: {', '.join(sorted(table))}.")
