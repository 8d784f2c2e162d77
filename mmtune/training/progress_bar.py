"""What a run shows while it trains: one line that follows it in a terminal, a line now and then elsewhere."""

import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar as Bar
from rich.segment import Segment
from rich.text import Text
from transformers import TrainerCallback

from mmtune.logs import CONSOLE
from mmtune.sizes import GIB
from mmtune.training.meter import StepMeter

log = logging.getLogger(__name__)

NARROWEST_BAR, WIDEST_BAR = 5, 24
FIGURES_BY_WEIGHT = ("count", "loss", "left", "tokens", "rate", "memory", "samples", "wait", "bar", "name")
"""What a narrow terminal keeps first."""
FIGURES_IN_ORDER = ("name", "bar", "count", "loss", "rate", "tokens", "samples", "wait", "memory", "left")


@dataclass
class Progress:
    """Where a run is, as one line; shown again and again by rich.

    Attributes:
        name: of the run.
        total: steps of the run.
        step: that is done.
        first_step: from which the run was started or resumed.
        figures: texts of the newest log.
        marks: when that was, when the first step since was done and when the last, in seconds of `time.monotonic`.
        widths: the widest text of each figure so far, so that a figure does not come and go with its digits.
    """

    name: str
    total: int
    step: int
    first_step: int
    figures: dict[str, str] = field(default_factory=dict)
    marks: list[float] = field(default_factory=lambda: [time.monotonic()])
    widths: dict[str, int] = field(default_factory=dict)

    def advance(self, step: int) -> None:
        """Tell that a step is done."""
        self.step, now = step, time.monotonic()
        if len(self.marks) == 1:
            self.marks += [now, now]
        self.marks[2] = now

    def seconds_left(self) -> float | None:
        """Return how long the rest will take at the speed since the start or resume; None before a step is done.

        The first step is slower than the others and does not count once there are two.
        """
        steps = self.step - self.first_step
        if steps < 1:
            return None
        begin, first, last = self.marks
        a_step = (last - first) / (steps - 1) if steps > 1 else first - begin
        return max(0.0, a_step * (self.total - self.step) - (time.monotonic() - last))

    def texts(self) -> dict[str, str]:
        """Return the figures by name, the bar left out."""
        left = self.seconds_left()
        own = {"name": self.name, "count": f"{self.step}/{self.total}"}
        return own | self.figures | ({} if left is None else {"left": f"{duration(left)} left"})

    def chosen(self, width: int) -> list[str]:
        """Return which figures fit into so many columns, in the order in which they stand."""
        for name, text in (self.texts() | {"bar": " " * NARROWEST_BAR}).items():
            self.widths[name] = max(self.widths.get(name, 0), len(text))
        kept, used = set(), -1
        for name in FIGURES_BY_WEIGHT:
            if name in self.widths and used + 1 + self.widths[name] <= width:
                kept.add(name)
                used += 1 + self.widths[name]
        return [name for name in FIGURES_IN_ORDER if name in kept]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from self._pieces(console, options)

    def _pieces(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        texts = self.texts()
        names = [name for name in self.chosen(options.max_width) if name == "bar" or name in texts]
        words = sum(len(texts[name]) for name in names if name != "bar")
        free = options.max_width - words - max(len(names) - 1, 0)
        for number, name in enumerate(names):
            if number:
                yield Segment(" ")
            if name == "bar":
                bar = Bar(total=self.total, completed=self.step, width=min(free, WIDEST_BAR))
                yield from console.render(bar, options)
            else:
                style = "bold" if name == "loss" else "cyan" if name == "left" else ""
                yield from console.render(Text(texts[name], style, end=""), options)


class ProgressBar(TrainerCallback):
    """Shows a run's progress with the figures of its meter.

    Args:
        name: what stands before the figures.
        meter: has the figures of the steps since the last log.
    """

    LINES_WITHOUT_TERMINAL = 20
    SECONDS_WITHOUT_LINE = 300.0

    def __init__(self, name: str, meter: StepMeter):
        self.name, self.meter = name, meter
        self.live: Live | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Open the bar."""
        self.progress = Progress(self.name, state.max_steps, state.global_step, state.global_step)
        self.next_line, self.last_line = state.global_step + 1, time.monotonic()
        if CONSOLE.is_terminal and state.is_world_process_zero and log.isEnabledFor(logging.INFO):
            self.live = Live(self.progress, console=CONSOLE, refresh_per_second=4)
            self.live.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Count the step."""
        self.progress.advance(state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Show the newest figures."""
        if not logs or "loss" not in logs or not state.is_world_process_zero:
            return
        self.progress.figures = figure_texts(logs, self.meter.figures)
        waited = time.monotonic() - self.last_line
        is_due = state.global_step >= self.next_line or waited > self.SECONDS_WITHOUT_LINE
        if is_due or state.global_step == state.max_steps:
            self.next_line = state.global_step + -(-state.max_steps // self.LINES_WITHOUT_TERMINAL)
            self.last_line = time.monotonic()
            texts = self.progress.texts()
            words = [texts[name] for name in FIGURES_IN_ORDER if name in texts and name not in ("name", "count")]
            count = f"{self.name}  step {texts['count']}"
            log.log(logging.DEBUG if self.live else logging.INFO, "%s", "  ".join([count, *words]))

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Close the bar."""
        self.close()

    def close(self) -> None:
        """Close the bar, also after an error."""
        if self.live is not None:
            self.live.stop()
            self.live = None


def figure_texts(logs: dict[str, Any], figures: dict[str, Any]) -> dict[str, str]:
    """Return what a log line says in words as short as they can be understood."""
    texts = {"loss": f"loss {logs['loss']:.3f}"}
    if "learning_rate" in logs:
        rate = logs["learning_rate"]
        texts["rate"] = "lr " + (f"{rate:.1e}".replace("e-0", "e-") if rate else "0")
    if figures:
        texts["tokens"] = f"{short(figures['supervised_tokens_per_second'])} tok/s"
        texts["samples"] = f"{short(figures['samples_per_second'])} samp/s"
        texts["wait"] = f"wait {100 * figures['data_wait_share']:.0f}%"
        texts["memory"] = f"{figures['peak_memory_bytes'] / GIB:.1f}G"
    return texts


def short(number: float) -> str:
    """Return a rate in at most four characters where it is below a million: `0.12`, `3.4`, `56`, `780`, `1.2k`."""
    if number < 999.5:
        return f"{number:.2f}" if number < 0.995 else f"{number:.1f}" if number < 9.95 else f"{number:.0f}"
    return f"{number / 1000:.1f}k" if number < 9950 else f"{number / 1000:.0f}k"


def duration(seconds: float) -> str:
    """Return a time as `42s`, `3:07` (minutes) or `2:03:07`, from a day on as `1d 02h`."""
    whole = math.ceil(seconds)
    hours, minutes = divmod(whole // 60, 60)
    if hours >= 24:
        return f"{hours // 24}d {hours % 24:02d}h"
    if hours:
        return f"{hours}:{minutes:02d}:{whole % 60:02d}"
    return f"{minutes}:{whole % 60:02d}" if minutes else f"{whole}s"
