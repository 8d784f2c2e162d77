"""Several runs on one language model and one vision encoder: which one answers can be changed in a moment.

Each run keeps its own adapters and its own projector; the models below, which are large, are there once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from peft import PeftModel

from mmtune.build import load_run
from mmtune.errors import CheckpointError, ConfigError
from mmtune.lookup import lookup
from mmtune.models.projector import Projector
from mmtune.models.stacking import CONFIG_FILE, activate, adapter_folders, add_adapter, require_shareable
from mmtune.models.weights import (
    PROJECTOR_FILE,
    STACK_FOLDER,
    TRAINED,
    VISION_ADAPTER_FOLDER,
    held_parts,
    load_strictly,
    read_tensors,
    stacked_names,
)
from mmtune.run_folder import read_config, require_complete
from mmtune.same_models import require_same_llm, require_same_numbers, require_same_vision

UNLOADED = ("none", "base")


@dataclass(frozen=True)
class _Run:
    """What changes with a run: its projector, and PEFT's names of its adapters."""

    folder: Path
    projector: Projector | None
    llm_adapters: tuple[str, ...]
    vision_adapters: tuple[str, ...]


class AdapterSwitch:
    """Runs on the same base models, of which one answers at a time.

    Args:
        folders: run folders or checkpoints; the first one answers to begin with.
        llm: where the base language model is now, if it moved.
        vision: where the vision encoder is now, if it moved.
        quantization: of the base language model; None takes what the first run was trained with.
        device: None takes a GPU where there is one.

    Attributes:
        parts: the model as it answers now; always the same object.
        active: the name of the run that answers, or `none` where the adapters are unloaded.
        last: the name of the run that answers, or did before they were unloaded.

    Raises:
        CheckpointError: a run is incomplete, or cannot share the models of the first one.
    """

    def __init__(
        self,
        folders: Sequence[Path | str],
        *,
        llm: str | None = None,
        vision: str | None = None,
        quantization: Literal["nf4", "int8"] | None = None,
        device: torch.device | None = None,
    ):
        paths = [Path(folder) for folder in folders]
        if len(paths) > 1:
            for folder in paths:
                _require_sharing(folder, paths[0])
        self.parts = load_run(paths[0], llm=llm, vision=vision, quantization=quantization, device=device)
        loaded = [self._first(paths[0]), *(self._load(folder, number) for number, folder in enumerate(paths[1:], 1))]
        self.parts.model.eval().requires_grad_(False)
        self._runs = dict(zip(run_names(paths), loaded, strict=True))
        self.select(self.names[0])

    @property
    def names(self) -> tuple[str, ...]:
        """The names that `select` takes, without `none`, `base` and `layers`."""
        return tuple(self._runs)

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of what stacked runs are stacked on, such as `owls/stacked/0`: the adapters up to that one."""
        return tuple(self._layers())

    @property
    def has_adapter(self) -> bool:
        """Whether the language model of the run that answers differs from the base model."""
        run = {**self._runs, **self._layers()}[self.last]
        return bool(run.llm_adapters) or "llm" in held_parts(run.folder)

    def add(self, folder: Path | str) -> str:
        """Load another run beside those that are there, and return its name; one that is there is not loaded again.

        Raises:
            CheckpointError: it is incomplete, or cannot share the models of the others.
        """
        path = Path(folder)
        for name, run in self._runs.items():
            if run.folder.resolve() == path.resolve():
                return name
        first = next(iter(self._runs.values())).folder
        for each in (first, path):
            _require_sharing(each, first)
        try:
            loaded = self._load(path, len(self._runs))
        finally:
            self.parts.model.eval().requires_grad_(False)
            self.select(self.active)  # a new adapter acts as soon as it is there
        name = path.resolve().name
        name = str(folder) if name in (*self._runs, *UNLOADED) else name
        self._runs[name] = loaded
        return name

    @property
    def has_base(self) -> bool:
        """Whether the base model can answer too, and differs from the run that answers."""
        try:
            self._require_unloadable("/adapter")
        except (CheckpointError, ConfigError):  # its weights were trained, or its adapter cannot be unloaded
            return False
        return self.has_adapter

    def _layers(self) -> dict[str, _Run]:
        return {
            f"{name}/{STACK_FOLDER}/{number}": replace(run, llm_adapters=run.llm_adapters[: number + 1])
            for name, run in self._runs.items()
            for number in range(len(run.llm_adapters) - 1)
        }

    def select(self, name: str, place: str = "/adapter") -> None:
        """Let another run answer, or unload the adapters.

        Args:
            name: of a run, or one of `layers`; `none` or `base` is the language model without adapter. What it sees
                still comes through the projector (and the vision adapter) of the run that answered before.
            place: of errors.

        Raises:
            ConfigError: there is no such run, or its language model itself was trained.
            CheckpointError: an adapter came with changes to the base model, or with virtual tokens before it.
        """
        if name in UNLOADED:
            self._unload(place)
            return
        run = lookup({**self._runs, **self._layers(), **dict.fromkeys(UNLOADED)}, name, place)
        assert run is not None
        model = self.parts.model
        model.projector = run.projector
        _activate(model.llm, run.llm_adapters)
        if model.vision is not None:
            _activate(model.vision.tower, run.vision_adapters)
        self.active = self.last = name

    def _unload(self, place: str) -> None:
        self._require_unloadable(place)
        _activate(self.parts.model.llm, ())
        self.active = UNLOADED[0]

    def _require_unloadable(self, place: str) -> None:
        for run in self._runs.values():
            if "llm" in held_parts(run.folder):
                message = f"{run.folder} trained the language model itself: there is no adapter to unload."
                raise ConfigError(place, f"{message} `mmtune compare base RUN` asks the untrained model.")
            for path in adapter_folders(run.folder):
                require_shareable(path)

    def _first(self, folder: Path) -> _Run:
        model = self.parts.model
        own = (*stacked_names(model.llm), TRAINED) if isinstance(model.llm, PeftModel) else ()
        has_eyes = model.vision is not None and isinstance(model.vision.tower, PeftModel)
        return _Run(folder, model.projector, own, (TRAINED,) if has_eyes else ())

    def _load(self, folder: Path, number: int) -> _Run:
        """Put the adapters of a run beside those that are there, and read its projector."""
        model = self.parts.model
        names = [f"run_{number}_{layer}" for layer, _ in enumerate(adapter_folders(folder))]
        for name, path in zip(names, adapter_folders(folder), strict=True):
            model.llm = add_adapter(model.llm, path, name)
        eyes = _vision_adapters(folder)
        for path in eyes:
            assert model.vision is not None
            model.vision.tower = add_adapter(model.vision.tower, path, f"run_{number}")
        return _Run(folder, self._projector(folder), tuple(names), tuple(f"run_{number}" for _ in eyes))

    def _projector(self, folder: Path) -> Projector | None:
        model, settings = self.parts.model, read_config(folder).model.projector
        if model.projector is None or settings is None:
            return None
        sizes = model.projector.in_features, model.projector.out_features
        projector = Projector(settings.kind, *sizes, settings.standardize).to(model.device)
        load_strictly(projector, read_tensors(folder / PROJECTOR_FILE), folder / PROJECTOR_FILE)
        return projector.eval().requires_grad_(False)


def run_names(folders: Sequence[Path]) -> list[str]:
    """Return what runs are called: their folders' names, or whole paths where these say too little."""
    short = [folder.resolve().name for folder in folders]
    unclear = {name for name in short if short.count(name) > 1} | {*UNLOADED}
    return [str(folder) if name in unclear else name for name, folder in zip(short, folders, strict=True)]


def _activate(part: Any, names: Sequence[str]) -> None:
    if isinstance(part, PeftModel):
        activate(part, names)


def _vision_adapters(folder: Path) -> list[Path]:
    path = folder / VISION_ADAPTER_FOLDER
    return [path] if (path / CONFIG_FILE).is_file() else []


def _require_sharing(folder: Path, first: Path) -> None:
    """Check that a run can share the models of the first one: it trained adapters and the projector alone."""
    require_complete(folder)
    require_same_llm(folder, first)
    require_same_numbers(folder, first)
    require_same_vision(folder, first)
    model = read_config(folder).model
    for part, settings in (("llm", model.llm), ("vision", model.vision)):
        if settings is not None and part in held_parts(folder):
            how = "the whole" if settings.tune == "full" else "weights of"
            message = f"trained {how} model.{part} (tune: {settings.tune}), which it cannot share with other runs."
            raise CheckpointError(folder, f"{message} Chat with it alone: mmtune chat {folder}.")
    for path in (*adapter_folders(folder), *_vision_adapters(folder)):
        require_shareable(path)
