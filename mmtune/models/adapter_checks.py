"""What cannot work between a method and a model, said before anything is trained: one line with what instead."""

import difflib
from collections.abc import Iterator
from typing import Any

from peft.tuners.tuners_utils import check_target_module_exists
from torch import nn

from mmtune.errors import ConfigError
from mmtune.models.quantized import quantization_of

NOT_OVER: dict[str, tuple[str, ...]] = {
    "nf4": ("loha", "lokr", "hra"),
    "int8": ("dora",),
}
"""Methods that PEFT cannot put over weights of a quantization."""

KEPT_STARTS, UNKEPT_STARTS = ("pissa", "olora"), ("corda", "eva", "loftq", "lora_ga")
"""Values of `init_lora_weights` that start from the weights: those that a run folder keeps, and others."""

RANK_KEYS = {"lora": "r", "adalora": "init_r"}


def check_config(config: Any, name: str, model: nn.Module, place: str) -> None:
    """Hold that a method can work on a model.

    Args:
        config: PEFT's, with the values of `adapter`.
        name: of the method.
        model: that it is to be put on.
        place: the key, for errors.

    Raises:
        ConfigError: it cannot; the message names another method or value.
    """
    kind = config.peft_type.value.lower()
    if config.is_prompt_learning:
        if config.task_type is None:
            message = f"'{name}' puts virtual tokens before text, and a vision encoder reads none. Take lora."
            raise ConfigError(f"{place}.kind", message)
        return
    start = str(config.init_lora_weights) if kind == "lora" else ""
    if config.task_type is None and (kind == "adalora" or start.startswith(KEPT_STARTS)):
        message = (
            f"'{name}' needs steps of its own in training, which only the language model's adapter gets. Take lora."
        )
        raise ConfigError(f"{place}.kind", message)
    quantization = next((kind for kind in map(quantization_of, model.modules()) if kind), None)
    used = {name, kind} | ({"dora"} if kind == "lora" and config.use_dora else set())
    for refused in used & set(NOT_OVER.get(quantization or "", ())):
        raise ConfigError(f"{place}.kind", f"'{refused}' cannot be put over {quantization} weights. Take qlora.")
    if quantization and start.startswith(KEPT_STARTS):
        message = f"starts from dense weights, these are {quantization}. Take qlora, or model.llm.quantization: null."
        raise ConfigError(place, f"'{start}' {message}")
    if start.startswith(UNKEPT_STARTS):
        message = f"'{start}' needs weights or data that a run folder does not keep. Take true, pissa or olora."
        raise ConfigError(f"{place}.init_lora_weights", message)
    _check_names(config, model, place)
    for path, layer in _targets(config, model):
        if isinstance(layer, nn.Embedding):
            message = f"'{path}' is an embedding, and images reach the model past it. Name linear layers."
            raise ConfigError(f"{place}.target_modules", message)
        if kind in RANK_KEYS and isinstance(layer, nn.Linear):
            _check_rank(config, kind, path, layer, place)


def _targets(config: Any, model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules that an adapter goes on, as far as its config names them itself."""
    if config.target_modules is None:
        return
    for path, module in model.named_modules():
        if config.target_modules == "all-linear":
            is_target = isinstance(module, nn.Linear) and not path.endswith("lm_head")
        else:
            is_target = bool(path) and bool(check_target_module_exists(config, path))
        if is_target:
            yield path, module


def _check_names(config: Any, model: nn.Module, place: str) -> None:
    """Each name must be that of a module; PEFT minds only when none is."""
    named = config.target_modules
    if not isinstance(named, (set, list)):
        return
    paths = [path for path, _ in model.named_modules() if path]
    last = {path.rpartition(".")[2] for path in paths}
    for name in sorted(named):
        if not any(path == name or path.endswith(f".{name}") for path in paths):
            close = difflib.get_close_matches(name, last, n=3, cutoff=0.5)
            linear = {path.rpartition(".")[2] for path, layer in model.named_modules() if isinstance(layer, nn.Linear)}
            hint = f"Nearest: {', '.join(close)}." if close else f"Linear layers: {', '.join(sorted(linear))}."
            raise ConfigError(f"{place}.target_modules", f"no module is called '{name}'. {hint}")


def _check_rank(config: Any, kind: str, path: str, layer: nn.Linear, place: str) -> None:
    rank = getattr(config, RANK_KEYS[kind])
    largest = min(layer.in_features, layer.out_features)
    if rank > largest and not config.rank_pattern:
        size = f"'{path}' is {layer.out_features} x {layer.in_features}"
        message = f"{rank} is larger than a matrix's rank can be: {size}. Set at most {largest}."
        raise ConfigError(f"{place}.{RANK_KEYS[kind]}", message)
