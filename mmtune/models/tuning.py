"""Which parameters of a part train, by the value of its `tune`: none, all, the last blocks, or those of given names."""

import difflib
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from mmtune.errors import ConfigError
from mmtune.models.blocks import blocks_of

NO_BIAS = "has no bias parameters, so BitFit has nothing to train. Take kind: ln_tuning, which trains the norms."


def set_trained(part: nn.Module, tune: str | dict[str, Any] | list[str], place: str) -> None:
    """Let the parameters of a frozen part train that `tune` names.

    Args:
        part: a language model, vision encoder or projector.
        tune: `frozen` and `adapter` train none of its own, `full` all; `{top_layers: N}` the last N blocks;
            a list holds names of parameters, in which `*` stands for any text.
        place: the key, for errors.

    Raises:
        ConfigError: fewer blocks than asked for, a name that no parameter has, or quantized weights.
    """
    if tune == "full":
        _train(dict(part.named_parameters()), place)
    elif isinstance(tune, dict):
        for block in top_blocks(part, tune["top_layers"], place):
            _train(dict(block.named_parameters()), place)
    elif isinstance(tune, list):
        _train(_named(part, tune, place), place)


def top_blocks(part: nn.Module, count: int, place: str) -> list[nn.Module]:
    """Return the last `count` blocks of a part, the last one first.

    Raises:
        ConfigError: it has fewer.
    """
    blocks = blocks_of(part)
    if count > len(blocks):
        raise ConfigError(place, f"top_layers: {count}, but this model has {len(blocks)} blocks. Set fewer, or full.")
    return blocks[: -count - 1 : -1]


def train_biases(llm: nn.Module, place: str) -> None:
    """Let biases and norms train, and nothing else: BitFit.

    Raises:
        ConfigError: the model has no bias, as Llama and its kin.
    """
    parameters = dict(llm.named_parameters())
    biases = {name: value for name, value in parameters.items() if name.endswith(".bias")}
    if not biases:
        raise ConfigError(place, f"{type(llm).__name__} {NO_BIAS}")
    norms = {name: value for name, value in parameters.items() if value.dim() == 1 and "norm" in name.lower()}
    _train(biases | norms, place)


def _named(part: nn.Module, patterns: list[str], place: str) -> dict[str, nn.Parameter]:
    parameters = dict(part.named_parameters())
    found: dict[str, nn.Parameter] = {}
    for pattern in patterns:
        matching = {name: value for name, value in parameters.items() if fnmatchcase(name, pattern)}
        if not matching:
            close = difflib.get_close_matches(pattern, parameters, n=3, cutoff=0.3)
            raise ConfigError(place, f"no parameter is called '{pattern}'. Nearest: {', '.join(close)}.")
        found |= matching
    return found


def _train(parameters: dict[str, nn.Parameter], place: str) -> None:
    for name, parameter in parameters.items():
        if not parameter.is_floating_point():
            message = f"'{name}' is quantized and cannot train. Set quantization: null, or tune: adapter."
            raise ConfigError(place, message)
        parameter.requires_grad = True
