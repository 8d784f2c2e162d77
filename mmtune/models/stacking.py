"""Several trained adapters on one model: read from their folders, put on, made active or not.

PEFT lets several adapters of one kind act at once; what each adds to a layer's output adds up. Which runs they come
from is decided elsewhere.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel, get_peft_model

from mmtune.errors import CheckpointError, ConfigError
from mmtune.models.adapter_checks import KEPT_STARTS, UNKEPT_STARTS
from mmtune.models.prompts import has_prompts
from mmtune.models.weights import ADAPTER_FILE, ADAPTER_FOLDER, STACK_FOLDER, TRAINED, load_adapter, read_tensors

CONFIG_FILE = "adapter_config.json"

STACKABLE = ("lora", "ia3", "loha", "lokr", "boft", "hra", "vera")
"""Kinds of which a new one changes nothing at first, and several act at once as they do merged one after the other."""

CHANGES_BASE = (*KEPT_STARTS, *UNKEPT_STARTS)
"""How values of `init_lora_weights` begin with which PEFT changes the layers below the adapter when it makes one."""


def adapter_folders(folder: Path) -> list[Path]:
    """Return where the language model's adapters of a run are, in the order in which they are stacked.

    Args:
        folder: a run folder, a checkpoint in it, or a folder that holds an adapter alone, as PEFT writes it.
    """
    if (folder / CONFIG_FILE).is_file():
        return [folder]
    own = [folder / ADAPTER_FOLDER] if (folder / ADAPTER_FOLDER / CONFIG_FILE).is_file() else []
    return [*stacked_folders(folder), *own]


def stacked_folders(folder: Path) -> list[Path]:
    """Return where the frozen adapters are that the adapter of a run is stacked on, the lowest first."""
    return sorted((folder / STACK_FOLDER).glob("*"), key=lambda path: int(path.name))


def hold_the_same(folders: Sequence[Path], others: Sequence[Path]) -> bool:
    """Whether two stacks hold the same weights, bit for bit."""
    if len(folders) != len(others):
        return False
    for one, other in zip(folders, others, strict=True):
        tensors, expected = read_tensors(one / ADAPTER_FILE), read_tensors(other / ADAPTER_FILE)
        if tensors.keys() != expected.keys() or not all(torch.equal(tensors[name], expected[name]) for name in tensors):
            return False
    return True


def stack_adapters(llm: Any, folders: Sequence[Path]) -> None:
    """Put trained adapters below the new one of a language model. They act with it and stay frozen, without dropout.

    Args:
        llm: with a new adapter.
        folders: of the trained ones, from `adapter_folders`.

    Raises:
        ConfigError: the new one is none of PEFT's.
        CheckpointError: PEFT cannot have them act together with the new one, or they do not fit the model.
    """
    if not isinstance(llm, PeftModel):
        message = "the new adapter is none of PEFT's (kind: bitfit or houlsby), which stacks its own. Take kind: lora."
        raise ConfigError("model.stack_on", message)
    trained = {name for name, value in llm.named_parameters() if value.requires_grad}
    names = [f"stacked_{number}" for number in range(len(folders))]
    for name, folder in zip(names, folders, strict=True):
        add_adapter(llm, folder, name)
        _check_stackable(llm, name, folder)
    try:
        activate(llm, [*names, TRAINED])
    except ValueError as error:  # such as several copies of one module trained in full
        raise CheckpointError(folders[0], f"PEFT cannot stack on it: {_first_line(error)}. Train anew.") from None
    for name, value in llm.named_parameters():
        value.requires_grad_(name in trained)


def add_adapter(model: Any, folder: Path, name: str) -> PeftModel:
    """Put a trained adapter on a model, beside those that it has; it does not act before `activate`.

    Args:
        model: the language model or a tower, plain or with adapters.
        folder: of the adapter, in PEFT's layout.
        name: for PEFT.

    Raises:
        CheckpointError: it is of another kind than those there, cannot be shared, or does not fit the model.
    """
    config = _read_config(folder)
    _check_shareable(config, folder)
    if isinstance(model, PeftModel):
        there = kind_of(next(iter(model.peft_config.values())))
        if kind_of(config) != there:
            message = f"its adapter is {kind_of(config)}, the model has {there}: PEFT holds one kind on a model."
            raise CheckpointError(folder, f"{message} Take adapters of one kind.")
    try:
        if isinstance(model, PeftModel):
            model.add_adapter(name, config)
        else:
            model = get_peft_model(model, config, adapter_name=name)
    except (TypeError, ValueError, AttributeError, NotImplementedError) as error:
        message = f"PEFT cannot put this adapter on the model: {_first_line(error)}."
        raise CheckpointError(folder, f"{message} Take a run on the same base model.") from None
    load_adapter(model, read_tensors(folder / ADAPTER_FILE), folder / ADAPTER_FILE, name)
    return model


def activate(model: PeftModel, names: Sequence[str]) -> None:
    """Let these adapters act, and no others; none of them trains. Without names the model is as it was before any."""
    if has_prompts(model):  # no layer holds virtual tokens; such a model has them and nothing else
        assert list(names) == [TRAINED], names
        return
    tuner: Any = model.base_model
    if not names:
        tuner.disable_adapter_layers()
        return
    tuner.enable_adapter_layers()
    tuner.set_adapter(list(names), inference_mode=True)


def kind_of(config: PeftConfig) -> str:
    """Return the kind of an adapter, as `model.adapter.kind` spells it."""
    kind: Any = config.peft_type
    return kind.value.lower()


def require_shareable(folder: Path) -> None:
    """Refuse an adapter that comes with changes to the base model, or with tokens before it, which others would see.

    Args:
        folder: of the adapter, in PEFT's layout.

    Raises:
        CheckpointError: see above.
    """
    _check_shareable(_read_config(folder), folder)


def _check_shareable(config: Any, folder: Path) -> None:
    if config.is_prompt_learning:
        message = f"its adapter is {kind_of(config)}: virtual tokens in front of the whole model, which none can share."
        raise CheckpointError(folder, f"{message} Ask it alone: mmtune chat RUN.")
    start = config.to_dict().get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(CHANGES_BASE):
        message = f"its adapter started as {start}, which changes the base model's weights, so none can share them."
        raise CheckpointError(folder, f"{message} Build on its merged model: mmtune export --format merged.")


def _check_stackable(llm: PeftModel, name: str, folder: Path) -> None:
    kind = kind_of(llm.peft_config[name])
    if kind not in STACKABLE:
        message = f"PEFT cannot have several {kind} adapters act at once. Kinds that stack: {', '.join(STACKABLE)}."
        raise CheckpointError(folder, f"its adapter is {kind}. {message}")
    if any(llm.peft_config[key].to_dict().get("use_dora") for key in (name, TRAINED)):
        message = "DoRA rescales whole weights, which does not add up with another adapter. Stack plain lora."
        raise CheckpointError(folder, message)


def _read_config(folder: Path) -> Any:
    """Read PEFT's config of an adapter, without dropout: what is trained already is not to be hidden by chance."""
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise CheckpointError(folder, f"holds no {CONFIG_FILE}: no adapter as PEFT writes it. Name a run with one.")
    try:
        config = PeftConfig.from_pretrained(str(folder))
    except (TypeError, ValueError, KeyError) as error:
        raise CheckpointError(path, f"cannot be read: {_first_line(error)}. Take another checkpoint.") from None
    for field in dataclasses.fields(config):
        if field.name.endswith("dropout"):
            setattr(config, field.name, 0.0)
    return config


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200].rstrip(".")
