"""Ctrl-C and SIGTERM while training: the step is finished and saved, then the run ends; once more ends it at once."""

import logging
import os
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from transformers import TrainerCallback

from mmtune.errors import Interrupted
from mmtune.logs import CONSOLE

log = logging.getLogger(__name__)
SIGNALS = (signal.SIGINT, signal.SIGTERM)
NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


class Interruption(TrainerCallback):
    """Ends a run at the end of a step when a signal came, with a checkpoint.

    As a context it listens to the signals, in the main thread alone: elsewhere they belong to the program that trains.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.before: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self._receive) for number in SIGNALS}
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            CONSOLE.show_cursor()  # which a progress line had hidden
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        self.received = number
        log.warning("%s: the run is saved after this step and ends; once more ends it at once", _name(number))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Save and stop."""
        if self.received is not None:
            control.should_save = control.should_training_stop = True

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Save and stop without another step, where the signal came while the model was measured."""
        self.on_step_end(args, state, control)

    def raise_if_received(self, checkpoint: Path | None, is_finished: bool) -> None:
        """End the run if a signal came before its last step.

        Raises:
            Interrupted: with the exit code of the signal.
        """
        if self.received is not None and not is_finished:
            raise Interrupted(f"{_name(self.received)}: saved {checkpoint}; --resume continues", 128 + self.received)


def _name(number: int) -> str:
    return NAMES.get(signal.Signals(number), str(number))
