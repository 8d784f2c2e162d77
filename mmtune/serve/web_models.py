"""The models that a page asks: a run, and beside it what it was before training. Asking them is in `web_talk.py`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mmtune.build import Parts, load_run
from mmtune.build_folder import is_model, load_model
from mmtune.chat.switching import UNLOADED, AdapterSwitch
from mmtune.errors import CheckpointError, ConfigError
from mmtune.run_folder import read_system

AFTER, BEFORE = "after", "before"
Quantization = Literal["nf4"] | None


@dataclass(frozen=True)
class Side:
    """A model that answers in a column of the page.

    Attributes:
        key: `AFTER` or `BEFORE`.
        name: what the page calls it; empty for the base model of a run.
        parts: of it; sides may share them.
        select: lets it answer; in the worker's thread, before it is asked.
        system: the system message that its training gave, or None.
    """

    key: str
    name: str
    parts: Parts
    select: Callable[[], None]
    system: str | None


@dataclass(frozen=True)
class Choice:
    """How models are loaded: where moved base models are now, and how they are quantized."""

    llm: str | None = None
    vision: str | None = None
    template: str | None = None
    quantization: Quantization = None


def open_sides(folder: str, before: str | None, choice: Choice) -> list[Side]:
    """Load a model, and what it is compared with where there is something to compare with.

    Runs on the same base models share them. Without `before`, a run with an adapter is compared with the model below
    it, which sees through the projector of the run.

    Args:
        folder: a run, a checkpoint, or a model that `is_model` knows.
        before: the same, or None.
        choice: how they are loaded.

    Raises:
        ConfigError: both are the same.
        MMTuneError: one cannot be loaded.
    """
    if before is not None and Path(before).resolve() == Path(folder).resolve():
        raise ConfigError("--before", f"{before} is what it would be compared with. Name another run, or leave it out.")
    if is_model(folder):
        sides = [_model(AFTER, folder, choice)]
        return [*sides, _alone(BEFORE, before, choice)] if before else sides
    if before is None:
        return _with_base(folder, choice)
    if not is_model(before):
        try:
            return _switched(folder, before, choice)
        except CheckpointError as error:  # such as one that trained the language model itself
            if not Path(before).is_dir():
                raise error
    return [_alone(AFTER, folder, choice), _alone(BEFORE, before, choice)]


def _with_base(folder: str, choice: Choice) -> list[Side]:
    switch = _switch([folder], choice)
    name, system = switch.names[0], read_system(folder)
    after = Side(AFTER, name, switch.parts, lambda: switch.select(name), system)
    if not switch.has_base:
        return [after]
    return [after, Side(BEFORE, "", switch.parts, lambda: switch.select(UNLOADED[0]), system)]


def _switched(folder: str, before: str, choice: Choice) -> list[Side]:
    switch = _switch([folder, before], choice)
    last, first = switch.names
    return [
        Side(AFTER, last, switch.parts, lambda: switch.select(last), read_system(folder)),
        Side(BEFORE, first, switch.parts, lambda: switch.select(first), read_system(before)),
    ]


def _switch(folders: list[str], choice: Choice) -> AdapterSwitch:
    return AdapterSwitch(folders, llm=choice.llm, vision=choice.vision, quantization=choice.quantization)


def _alone(key: str, folder: str, choice: Choice) -> Side:
    """A model that shares nothing."""
    if is_model(folder):
        return _model(key, folder, choice)
    parts = load_run(folder, llm=choice.llm, vision=choice.vision, quantization=choice.quantization)
    parts.model.eval().requires_grad_(False)
    return Side(key, Path(folder).resolve().name, parts, _nothing, read_system(folder))


def _model(key: str, folder: str, choice: Choice) -> Side:
    parts = load_model(folder, template=choice.template, quantization=choice.quantization)
    return Side(key, Path(folder).name, parts, _nothing, None)


def _nothing() -> None:
    """A model of its own needs no switching."""
