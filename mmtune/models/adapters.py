"""Adapters on the language model and on the vision encoder, through PEFT's own classes and words."""

import dataclasses
import difflib
from typing import Any

from peft import PeftModel, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from torch import nn
from transformers import PreTrainedModel

from mmtune.errors import ConfigError
from mmtune.lookup import lookup
from mmtune.models.vision_encoder import VisionEncoder

ALIASES: dict[str, tuple[str, dict[str, Any]]] = {
    "qlora": ("lora", {}),  # LoRA over `model.llm.quantization: nf4`
    "dora": ("lora", {"use_dora": True}),
    "rslora": ("lora", {"use_rslora": True}),
    "pissa": ("lora", {"init_lora_weights": "pissa"}),
}
"""Method names that PEFT spells as an option of another method."""

DEFAULTS: dict[str, dict[str, Any]] = {"lora": {"target_modules": "all-linear"}}
KINDS = {kind.value.lower(): kind for kind in PEFT_TYPE_TO_CONFIG_MAPPING}


def attach_adapter(llm: PreTrainedModel, options: dict[str, Any]) -> PeftModel:
    """Wrap a frozen language model with a new adapter.

    Args:
        llm: the frozen language model.
        options: `kind` and that PEFT method's own keys; LoRA goes on all linear layers but the head unless
            `target_modules` says otherwise.

    Raises:
        ConfigError: an unknown kind or key, a value PEFT refuses, modules that the model does not have.
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


def _wrapped(model: Any, options: dict[str, Any], place: str, task_type: str | None) -> PeftModel:
    given = dict(options)
    name = given.pop("kind", "lora")
    kind, implied = ALIASES.get(name, (name, {}))
    config_class = PEFT_TYPE_TO_CONFIG_MAPPING[lookup(KINDS, kind, f"{place}.kind")]
    _check_keys(given, config_class, kind, place)
    try:
        config = config_class(task_type=task_type, **{**DEFAULTS.get(kind, {}), **implied, **given})
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigError(place, _refused(error)) from None
    if config.is_prompt_learning:
        message = f"'{kind}' puts virtual tokens in front of the input, which image slots do not allow yet. Use lora."
        raise ConfigError(f"{place}.kind", message)
    try:
        return get_peft_model(model, config)
    except (TypeError, ValueError, AttributeError, NotImplementedError) as error:
        is_about_modules = "target modules" in str(error).lower()
        message = _first_line(error) + _module_names(model) if is_about_modules else _refused(error)
        raise ConfigError(place, message) from None


def _check_keys(given: dict[str, Any], config_class: type, kind: str, place: str) -> None:
    known = {field.name for field in dataclasses.fields(config_class) if field.init}
    for key in given:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"Did you mean '{close[0]}'?" if close else f"Known: {', '.join(sorted(known))}."
            raise ConfigError(f"{place}.{key}", f"PEFT's {kind} has no such key. {hint}")


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200].rstrip(".") + "."


def _refused(error: Exception) -> str:
    return f"PEFT refuses these values: {_first_line(error)} Mend the value."


def _module_names(model: nn.Module) -> str:
    linear = {name.rsplit(".", 1)[-1] for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    return f" Linear layers of this model: {', '.join(sorted(linear))}."
