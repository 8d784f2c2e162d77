"""How long steps show that they advance: a bar in a terminal, a line now and then in a log."""

import logging
import time
from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from mmtune.logs import CONSOLE

log = logging.getLogger(__name__)


class Bars:
    """Bars by name; call it with what is done and how much, as often as you like. Use it in a `with`."""

    SECONDS_BETWEEN_LINES = 20.0

    def __init__(self) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn())
        self.progress = Progress(*columns, console=CONSOLE, transient=True) if CONSOLE.is_terminal else None
        self.tasks: dict[str, TaskID] = {}
        self.last_line = time.monotonic()

    def __enter__(self) -> "Bars":
        if self.progress is not None:
            self.progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.progress is not None:
            self.progress.stop()

    def __call__(self, what: str, done: int, total: int | None = None) -> None:
        """Show that `done` of `total` are through; None where the total is not known."""
        if self.progress is not None:
            if what not in self.tasks:
                self.tasks[what] = self.progress.add_task(what, total=total)
            self.progress.update(self.tasks[what], completed=done, total=total)
        elif time.monotonic() - self.last_line > self.SECONDS_BETWEEN_LINES:
            self.last_line = time.monotonic()
            log.info("%s: %s%s", what, f"{done:,}", "" if total is None else f" of {total:,}")
