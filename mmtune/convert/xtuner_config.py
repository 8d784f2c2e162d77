"""From a config of XTuner 0.1 (a Python file, never run) to one of ours, with a list of what could not be carried over.

Source: xtuner 0.1.23, the configs in `xtuner/configs/llava` and `xtuner/configs/internlm`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mmtune.config import config_from_values
from mmtune.convert.sections import Section
from mmtune.convert.xtuner_parts import convert_data, convert_model, image_tokens
from mmtune.convert.xtuner_training import convert_hooks, convert_train
from mmtune.errors import ConfigError
from mmtune.python_config import read_python_config

MODELS = ("LLaVAModel", "SupervisedFinetune")
OTHER_SECTIONS = (
    "load_from",
    "resume",
    "strategy",
    "runner_type",
    "val_dataloader",
    "val_cfg",
    "val_evaluator",
    "test_dataloader",
    "test_cfg",
    "test_evaluator",
)
"""Sections of mmengine that have nothing here: reported where they are set."""


@dataclass
class Converted:
    """A config of ours.

    Attributes:
        verb: that it is for: `pretrain`, `finetune` or `sft`.
        values: of the config, as they go into YAML.
        notes: what was not carried over, or is another thing here; one line each.
    """

    verb: str
    values: dict[str, Any]
    notes: list[str]


def convert_xtuner_config(path: Path) -> Converted:
    """Read an XTuner config without running it, and return ours.

    Raises:
        ConfigError: the file is missing, no Python, inherits from others, or trains something that we do not.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(path, f"cannot be read: {error}. Name a Python config of XTuner.") from None
    file = read_python_config(text, str(path))
    notes = [f"{statement} (not read)" for statement in file.unread]
    top = Section(file.values, "", notes)
    model = top.section("model")
    kind = model.name()
    if kind not in MODELS:
        message = f"its model is {kind or 'not to be found'}. Those that can be converted: {', '.join(MODELS)}."
        raise ConfigError(path, f"{message} Take another file.")
    verb = _verb(kind, model)
    data = convert_data(top, has_images=kind == "LLaVAModel")
    values = {"model": convert_model(model, verb, data.chat_template), "data": data.values}
    values["train"] = {"output_dir": top.take("work_dir", str) or f"runs/{path.stem}"}
    values["train"] |= {"gradient_checkpointing": model.take("use_activation_checkpointing", bool, True)}
    values["train"] |= data.train | convert_train(top)
    sample = convert_hooks(top)
    values |= {"sample": sample} if sample is not None else {}
    _fit_max_length(values, data.max_length, notes)
    rest = Section({key: top.values[key] for key in OTHER_SECTIONS if key in top.values}, "", notes)
    rest.drop_if(resume=False)
    for section in (model, rest):
        section.report()
    config_from_values(values, f"{path} as converted", verb)
    return Converted(verb, values, list(dict.fromkeys(notes)))


def _verb(kind: str, model: Section) -> str:
    if kind == "SupervisedFinetune":
        return "sft"
    trains_llm = model.values.get("llm_lora") or not model.values.get("freeze_llm")
    return "finetune" if trains_llm else "pretrain"


def _fit_max_length(values: dict[str, Any], length: int | None, notes: list[str]) -> None:
    """Set `data.max_length`. XTuner counts an image as one token there, mmtune as all the tokens that it becomes."""
    if length is None:
        return
    vision = values["model"].get("vision")
    tokens = 1 if vision is None else image_tokens(vision["name"])
    if tokens is None:
        notes.append(f"max_length: {length} plus the tokens of an image; add them to data.max_length")
    values["data"]["max_length"] = length + (tokens or 1) - 1


def to_text(converted: Converted, source: Path, target: str) -> str:
    """Return the YAML file, opening with the command that runs it and what was not carried over."""
    lines = [f"# mmtune {converted.verb} {target}", f"# Converted from {source.name}, a config of XTuner."]
    if converted.notes:
        lines += ["# Not carried over, or another thing here:", *[f"# - {note}" for note in converted.notes]]
    body = yaml.safe_dump(converted.values, sort_keys=False, allow_unicode=True, width=120)
    return "\n".join(lines) + "\n" + body
