"""TensorBoard, Weights & Biases and Trackio by the integrations of transformers: what they are told, how they go on."""

import importlib
import importlib.util
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from mmtune.config import to_values, to_yaml
from mmtune.errors import ConfigError
from mmtune.processes import rank
from mmtune.run_folder import TRACKING_FOLDER, read_json, write_json
from mmtune.schema import Config

KEY = "train.report_to"
TENSORBOARD, WANDB, TRACKIO = "tensorboard", "wandb", "trackio"
TRACKERS = (TENSORBOARD, WANDB, TRACKIO)
"""Names in `train.report_to`; each is also the name of its package and of the extra that brings it."""
RUN_FILE = "run.json"


def require_trackers(names: Sequence[str]) -> None:
    """Check that the package of each tracker is here.

    Raises:
        ConfigError: one is not installed.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(KEY, f"{name} is not installed. Run: pip install 'mmtune[{name}]'")


def tracked_run(config: Config, folder: Path, first_step: int) -> dict[str, str]:
    """Return name and id by which the trackers know a run: a resumed one keeps those it had.

    Args:
        config: of the run.
        folder: of the run.
        first_step: where it continues; 0 begins a new one.
    """
    path = folder / TRACKING_FOLDER / RUN_FILE
    if first_step and path.is_file():
        return read_json(path)
    now = time.strftime("%Y%m%d-%H%M%S")
    path.parent.mkdir(parents=True, exist_ok=True)
    run = {"name": config.train.run_name or f"{folder.name}-{now}", "id": f"{now}-{os.urandom(3).hex()}"}
    write_json(path, run)
    return run


def tracker_callbacks(config: Config, folder: Path, first_step: int) -> list[TrainerCallback]:
    """Start the trackers of a run and return what the Trainer calls; nothing on other ranks than 0.

    Args:
        config: of the run.
        folder: of the run; what trackers write themselves goes to `tracking/` in it, but for Trackio.
        first_step: where it continues.

    Raises:
        ConfigError: a tracker cannot start.
    """
    names = config.train.report_to
    if not names or rank():
        return []
    from transformers.integrations import TensorBoardCallback, TrackioCallback, WandbCallback

    run = tracked_run(config, folder, first_step)
    callbacks: list[TrainerCallback] = []
    if TENSORBOARD in names:
        from torch.utils.tensorboard import SummaryWriter

        # what an interrupted run wrote behind the checkpoint is not shown
        purge_step = first_step + 1 if first_step else None
        writer = SummaryWriter(str(folder / TRACKING_FOLDER / TENSORBOARD), purge_step=purge_step)
        indented = "".join(f"    {line}\n" for line in to_yaml(config).splitlines())
        writer.add_text("config", indented, first_step)
        callbacks.append(TensorBoardCallback(writer))
    if WANDB in names:
        try:
            _start_wandb(config, folder, run)
        except ConfigError:
            if not first_step:
                shutil.rmtree(folder / TRACKING_FOLDER)  # a run that did not begin leaves nothing in its way
            raise
        callbacks.append(WandbCallback())
    if TRACKIO in names:
        callbacks.append(TrackioCallback())
    return [*callbacks, RunTracking(config, run)]


class RunTracking(TrainerCallback):
    """Gives the trackers the config of the run and ends what the integrations leave open.

    Args:
        config: of the run.
        run: name and id.
    """

    def __init__(self, config: Config, run: dict[str, str]):
        self.config, self.run = config, run

    def on_init_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Trackio reads the name of the run and its project from the arguments."""
        args.run_name, args.project = self.run["name"], self.config.train.project

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Trackio has started: tell it the config; the other two have it since their start."""
        if TRACKIO in self.config.train.report_to:
            importlib.import_module(TRACKIO).config.update({"mmtune": to_values(self.config)})

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """End the run of Weights & Biases, so that a second training of this process is a run of its own."""
        if WANDB in self.config.train.report_to:
            importlib.import_module(WANDB).finish()


def _start_wandb(config: Config, folder: Path, run: dict[str, str]) -> None:
    """Start the run that `WandbCallback` then finds: with our config, in the run's folder, the same one on resume."""
    wandb = importlib.import_module(WANDB)
    try:
        wandb.init(
            project=os.environ.get("WANDB_PROJECT", config.train.project),
            name=run["name"],
            id=run["id"],
            resume="allow",
            dir=str(folder / TRACKING_FOLDER),
            config={"mmtune": to_values(config)},
            settings=wandb.Settings(console="off"),  # run.log keeps the lines; the progress line is none
        )
    except wandb.Error as error:
        mend = "Mend that, log in with `wandb login`, or set WANDB_MODE=offline."
        raise ConfigError(KEY, f"wandb does not start: {' '.join(str(error).split())[:200]} {mend}") from None
