"""The models of a server by name: runs on the same base models, what they are stacked on, and the base without them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mmtune.build import Parts
from mmtune.build_folder import is_model, load_model
from mmtune.chat.switching import AdapterSwitch
from mmtune.lookup import nearest
from mmtune.run_folder import read_system
from mmtune.serve.refusals import Refused

BASE = "base"
"""The language model as it was before training: what `/before` asks in `mmtune chat`."""


@dataclass(frozen=True)
class Served:
    """One of them.

    Attributes:
        activate: lets it answer; for the worker's thread.
        system: the system message of dialogues that have none, or None.
    """

    activate: Callable[[], None]
    system: str | None


class ServedModels:
    """Models on the same base, of which one answers at a time.

    Args:
        parts: the model as it answers now.
        served: them all by name, the default first.
    """

    def __init__(self, parts: Parts, served: dict[str, Served]):
        self.parts, self._served = parts, served

    @property
    def names(self) -> tuple[str, ...]:
        """What a request may name, the default first."""
        return tuple(self._served)

    def __getitem__(self, name: str) -> Served:
        """Return one of them.

        Raises:
            Refused: there is none of this name.
        """
        if name not in self._served:
            known = ", ".join(self._served)
            message = f"there is no '{name:.80}' here.{nearest(name[:80], self._served)} There are: {known}."
            raise Refused(404, "model", message, "model_not_found")
        return self._served[name]


def load_served(
    folder: str,
    adapters: list[str],
    *,
    system: str | None = None,
    llm: str | None = None,
    vision: str | None = None,
    template: str | None = None,
    quantization: Literal["nf4"] | None = None,
) -> ServedModels:
    """Load a run with others on the same base models, or a model that is no run.

    Args:
        folder: a run or checkpoint; a language model; an hf-llava export.
        adapters: more runs.
        system: a system message where a dialogue has none; None takes that of each run's training, "" none.
        llm: where the base language model is now, if it moved.
        vision: where the vision encoder is now, if it moved.
        template: of a model that is no run.
        quantization: of the language model.

    Raises:
        MMTuneError: it cannot be loaded.
    """
    if is_model(folder):
        parts = load_model(folder, template=template, quantization=quantization)
        return ServedModels(parts, {Path(folder).resolve().name: Served(lambda: None, system or None)})
    folders = [folder, *adapters]
    switch = AdapterSwitch(folders, llm=llm, vision=vision, quantization=quantization)
    systems = [read_system(each) if system is None else system or None for each in folders]
    return ServedModels(switch.parts, served_runs(switch, systems))


def served_runs(switch: AdapterSwitch, systems: list[str | None]) -> dict[str, Served]:
    """Return what a switch can let answer, by name.

    Args:
        switch: of runs.
        systems: the system message of each run's training.
    """
    served = {name: Served(_selecting(switch, name), text) for name, text in zip(switch.names, systems, strict=True)}
    for layer in switch.layers:
        run = next(name for name in switch.names if layer.startswith(f"{name}/"))
        served[layer] = Served(_selecting(switch, layer), served[run].system)
    first = switch.names[0]
    if BASE not in served and switch.has_base:
        served[BASE] = Served(_selecting(switch, first, BASE), systems[0])
    return served


def _selecting(switch: AdapterSwitch, *names: str) -> Callable[[], None]:
    """Return what selects names in their order; the base sees through the projector of the run before it."""

    def activate() -> None:
        if switch.active != names[-1] or len(names) > 1:
            for name in names:
                switch.select(name)

    return activate
