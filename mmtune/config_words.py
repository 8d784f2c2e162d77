"""What a value of a config may be, in words, and what is said of one that is something else."""

import dataclasses
import json
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from omegaconf.errors import OmegaConfBaseException, ValidationError

from mmtune.errors import ConfigError

KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", NoneType: "null"}


def key_path(key: str) -> list[str]:
    """Split `data.train[0].path` into its names."""
    return key.replace("[", ".").replace("]", "").split(".")


def dataclass_in(hint: Any) -> Any:
    """Return the dataclass that a type hint holds, or None."""
    options = [hint, *get_args(hint)]
    return next(
        (option for option in options if get_origin(option) is None and dataclasses.is_dataclass(option)),
        None,
    )


def value_error(error: OmegaConfBaseException, given: dict[str, Any], schema: Any, place: str) -> ConfigError:
    """Return what to say of an error of OmegaConf about values of a schema."""
    key = error.full_key or ""
    if not isinstance(error, ValidationError) or not key:
        reason = str(error.msg or error).splitlines()[0].rstrip(".")
        return ConfigError(place, f"'{key}' has a wrong value: {reason}. Mend the value.")
    hint: Any = schema
    value: Any = given
    for name in key_path(key):
        is_entry = get_origin(hint) in (list, dict)
        hint = get_args(hint)[-1] if is_entry else get_type_hints(dataclass_in(hint))[name]
        value = value[int(name) if isinstance(value, list) else name]
    return ConfigError(place, f"'{key}' must be {in_words(hint)} (got {shown(value)}).")


def in_words(hint: Any) -> str:
    """Say what a type hint allows, such as `a whole number or null`."""
    if hint in KINDS:
        return KINDS[hint]
    if dataclasses.is_dataclass(hint):
        keys = list(get_type_hints(hint))
        return f"a section with keys such as {', '.join(keys[:4])}"
    if get_origin(hint) is Literal:
        return " or ".join(map(str, get_args(hint)))
    if get_origin(hint) is list:
        return "a list" if (inner := dataclass_in(hint)) is None else f"a list, each entry {in_words(inner)}"
    return "a mapping of keys" if get_origin(hint) is dict else " or ".join(map(in_words, get_args(hint)))


def shown(value: Any) -> str:
    """Return a value as JSON has it."""
    return json.dumps(value, default=str, ensure_ascii=False)


def require_plain_entries(hint: Any, value: Any, place: str, key: str) -> None:
    """Hold that a list or mapping of texts or numbers holds nothing nested, which OmegaConf lets in.

    Args:
        hint: of the key.
        value: what it was given.
        place: where that stands.
        key: its whole name.

    Raises:
        ConfigError: an entry is a list or a mapping.
    """
    kinds = [get_args(option)[-1] for option in (hint, *get_args(hint)) if get_origin(option) is type(value)]
    if not kinds or kinds[0] not in KINDS:
        return
    entries = value.items() if isinstance(value, dict) else [(f"[{n}]", entry) for n, entry in enumerate(value)]
    for name, entry in entries:
        if isinstance(entry, list | dict):
            whole = f"{key}.{name}" if isinstance(value, dict) else f"{key}{name}"
            raise ConfigError(place, f"'{whole}' must be {in_words(kinds[0])} (got {shown(entry)}).")
