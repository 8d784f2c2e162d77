"""Adapters on the language model and on the vision encoder, through PEFT's own classes and words."""

import dataclasses
import difflib
import logging
from typing import Any

from peft import get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from torch import nn
from transformers import PreTrainedModel

from mmtune.errors import ConfigError
from mmtune.lookup import lookup
from mmtune.models.adalora import PLACEHOLDER_STEPS
from mmtune.models.adapter_checks import KEPT_STARTS, check_config
from mmtune.models.houlsby import HoulsbyConfig, insert_adapters
from mmtune.models.methods import METHODS, OPTIMIZER_KEYS, OWN_KINDS, REFUSED_KINDS, Method
from mmtune.models.prompts import has_prefix, start_prefix
from mmtune.models.tuning import train_biases
from mmtune.models.vision_encoder import VisionEncoder

log = logging.getLogger(__name__)
KINDS = {kind.value.lower(): kind for kind in PEFT_TYPE_TO_CONFIG_MAPPING}


def attach_adapter(llm: PreTrainedModel, options: dict[str, Any]) -> Any:
    """Wrap a frozen language model with a new adapter.

    Args:
        llm: the frozen language model.
        options: `kind`, a key of `METHODS` or of PEFT, and that method's own keys; most methods go on all linear
            layers but the head unless `target_modules` says otherwise.

    Returns:
        A PeftModel; for `OWN_KINDS` the model itself, whose parameters to train have gradients.

    Raises:
        ConfigError: an unknown kind or key, a value PEFT refuses, modules that the model does not have, or a method
            that cannot work on this model.
    """
    return _wrapped(llm, options, "model.adapter", "CAUSAL_LM")


def attach_vision_adapter(vision: VisionEncoder, options: dict[str, Any]) -> None:
    """Put a new adapter on the tower of a frozen encoder.

    Args:
        vision: it holds the blocks it runs and no others, so that every adapter gets gradients.
        options: as for `attach_adapter`; LoRA goes on all linear layers of these blocks.

    Raises:
        ConfigError: as `attach_adapter`, or this encoder takes no adapter.
    """
    place = "model.vision.adapter"
    if vision.tower is None:
        raise ConfigError(place, "this encoder takes no adapter. Set model.vision.tune: frozen or full, adapter: null.")
    if any(isinstance(module, nn.MultiheadAttention) for module in vision.tower.modules()):
        message = "this tower has its attention in one fused module, past which adapters on its parts would be skipped."
        raise ConfigError(place, f"{message} Set model.vision.tune: frozen or full, adapter: null.")
    vision.tower = _wrapped(vision.tower, options, place, None)


def _wrapped(model: Any, options: dict[str, Any], place: str, task_type: str | None) -> Any:
    name = options.get("kind", "lora")
    method = _method(name, place)
    given = {key: value for key, value in options.items() if key != "kind"}
    if method.kind in OWN_KINDS:
        return _with_own_kind(model, method.kind, given, place)
    config = _peft_config(method, name, given, place, task_type)
    check_config(config, name, model, place)
    start = config.init_lora_weights if method.kind == "lora" else True
    if str(start).startswith(KEPT_STARTS):
        config.init_lora_weights = True  # the start is taken from the weights when training begins; adapter_start.py
    try:
        wrapped: Any = get_peft_model(model, config)
    except (TypeError, ValueError, AttributeError, NotImplementedError) as error:
        is_about_modules = "target modules" in str(error).lower()
        message = _first_line(error) + _module_names(model) if is_about_modules else _refused(error)
        raise ConfigError(place, message) from None
    except ImportError as error:
        raise ConfigError(f"{place}.kind", f"'{name}' needs another package: {_first_line(error)}") from None
    if method.kind == "lora":
        config.init_lora_weights = start
    if has_prefix(wrapped):
        start_prefix(wrapped)
    return wrapped


def _method(name: str, place: str) -> Method:
    """Return a method by name: of this package's table, or another one of PEFT's as it is."""
    if name in REFUSED_KINDS:
        raise ConfigError(f"{place}.kind", f"'{name}' cannot be used here: {REFUSED_KINDS[name]}. Take lora.")
    if name not in METHODS:
        lookup(dict.fromkeys({*METHODS, *KINDS} - REFUSED_KINDS.keys(), 0), name, f"{place}.kind")
        log.warning("adapter kind '%s' goes to PEFT as it is: not tested here on a model that sees", name)
    return METHODS.get(name, Method(name, "PEFT"))


def _peft_config(method: Method, name: str, given: dict[str, Any], place: str, task_type: str | None) -> Any:
    config_class = PEFT_TYPE_TO_CONFIG_MAPPING[KINDS[method.kind]]
    keys = {field.name for field in dataclasses.fields(config_class) if field.init} | set(method.defaults)
    _check_keys(given, keys, name, place)
    values = {**method.defaults, **given, **method.implied}
    for key, value in method.implied.items():
        if given.get(key, value) != value:
            raise ConfigError(f"{place}.{key}", f"kind: {name} is {key}: {value} (got {given[key]}). Take kind: lora.")
    if method.kind == "adalora":
        values.setdefault("total_step", PLACEHOLDER_STEPS)
    try:
        return config_class(task_type=task_type, **{key: values[key] for key in values if key not in OPTIMIZER_KEYS})
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigError(place, _refused(error)) from None


def _with_own_kind(model: Any, kind: str, given: dict[str, Any], place: str) -> Any:
    """Let a method that PEFT does not have go on a model; it returns the model itself."""
    if kind == "bitfit":
        _check_keys(given, set(), kind, place)
        train_biases(model, place)
    else:
        _check_keys(given, {field.name for field in dataclasses.fields(HoulsbyConfig)}, kind, place)
        insert_adapters(model, HoulsbyConfig(**given), f"{place}")
    return model


def _check_keys(given: dict[str, Any], known: set[str], kind: str, place: str) -> None:
    for key in given:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"Did you mean '{close[0]}'?" if close else f"Known: {', '.join(sorted(known)) or 'none'}."
            raise ConfigError(f"{place}.{key}", f"{kind} has no such key. {hint}")


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200].rstrip(".") + "."


def _refused(error: Exception) -> str:
    return f"PEFT refuses these values: {_first_line(error)} Mend the value."


def _module_names(model: nn.Module) -> str:
    linear = {name.rsplit(".", 1)[-1] for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    return f" Linear layers of this model: {', '.join(sorted(linear))}."
