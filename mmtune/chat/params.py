"""What `/params` shows and sets: how answers are chosen. The ranges are those of the options of `mmtune chat`."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from mmtune.chat.generate import Decoding
from mmtune.errors import ConfigError
from mmtune.lookup import lookup

PLACE = "/params"


@dataclass(frozen=True)
class Param:
    """One of them.

    Attributes:
        read: from its text to its value; raises ValueError.
        is_right: whether a value is in range.
        range: in words.
    """

    read: Callable[[str], float]
    is_right: Callable[[float], bool]
    range: str


PARAMS: dict[str, Param] = {
    "max_new_tokens": Param(int, lambda value: value >= 1, "a whole number from 1"),
    "temperature": Param(float, lambda value: 0 <= value < math.inf, "a number from 0"),
    "top_p": Param(float, lambda value: 0 < value <= 1, "a number above 0, up to 1"),
    "top_k": Param(int, lambda value: value >= 0, "a whole number, 0 for all"),
    "repetition_penalty": Param(float, lambda value: 0 < value < math.inf, "a number above 0, 1 for none"),
    "seed": Param(int, lambda value: 0 <= value < 2**63, "a whole number from 0"),
}


def shown_params(decoding: Decoding, seed: int) -> str:
    """Return all params as they are set."""
    return ", ".join(f"{name}={value:g}" for name, value in (asdict(decoding) | {"seed": seed}).items())


def changed_params(decoding: Decoding, seed: int, text: str) -> tuple[Decoding, int]:
    """Return what `name=value` texts with spaces between make of the params.

    Raises:
        ConfigError: a name is unknown or a value out of range; then none is changed.
    """
    values: dict[str, float] = {}
    for word in text.split():
        name, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(PLACE, f"write name=value, such as temperature=0.7 (got {word:.60}).")
        param = lookup(PARAMS, name, PLACE)
        try:
            values[name] = param.read(value)
        except ValueError:
            values[name] = math.nan
        if not param.is_right(values[name]):
            raise ConfigError(PLACE, f"{name} is {param.range} (got {value:.60}).")
    seed = int(values.pop("seed", seed))
    return replace(decoding, **values), seed  # type: ignore[arg-type]
