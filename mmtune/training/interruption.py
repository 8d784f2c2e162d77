"""Ctrl-C and SIGTERM while training: the step is finished and saved, then the run ends; once more ends it at once."""

import logging
import os
import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

from transformers import TrainerCallback

from mmtune.errors import Interrupted
from mmtune.logs import CONSOLE
from mmtune.processes import num_processes
from mmtune.training.ranks import highest

log = logging.getLogger(__name__)
SIGNALS = (signal.SIGINT, signal.SIGTERM)
SAME_SIGNAL_SECONDS = 5.0
"""Within which a second signal to one of several processes is the first one, sent by two."""
NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
HOW_TO_CONTINUE = "; --resume continues"


class Interruption(TrainerCallback):
    """Ends a run at the end of a step when a signal came, with a checkpoint.

    As a context it listens to the signals, in the main thread alone: elsewhere they belong to the program that trains.
    Several processes agree after each step: a signal comes to them at different times, or to one of them alone.

    Attributes:
        received: the signal that came to this process.
        ending: the signal that all processes end with.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.received_at = 0.0
        self.ending: int | None = None
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
            if num_processes() > 1 and time.monotonic() - self.received_at < SAME_SIGNAL_SECONDS:
                return  # a launcher passes on what the process has got from elsewhere already
            CONSOLE.show_cursor()  # which a progress line had hidden
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        self.received, self.received_at = number, time.monotonic()
        log.warning("%s: the run is saved after this step and ends; once more ends it at once", _name(number))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Save and stop."""
        self._agree()
        if self.ending is not None:
            control.should_save = control.should_training_stop = True

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Save and stop without another step, where the signal came while the model was measured."""
        self.on_step_end(args, state, control)

    def raise_if_received(self, checkpoint: Path | None, is_finished: bool) -> None:
        """End the run if a signal came before its last step.

        Raises:
            Interrupted: with the exit code of the signal.
        """
        self._agree()
        if self.ending is not None and not is_finished:
            raise Interrupted(f"{_name(self.ending)}: saved {checkpoint}{HOW_TO_CONTINUE}", 128 + self.ending)

    def _agree(self) -> None:
        self.ending = int(highest(self.received or 0)) or None


def _name(number: int) -> str:
    return NAMES.get(signal.Signals(number), str(number))
