"""The one logging policy: which lines reach standard error, how they look there, and the text log that a run keeps.

Every module logs to `logging.getLogger(__name__)`; only this file has handlers, levels and rules. Results of verbs go
to standard output and are no log lines. All of standard error is written through `CONSOLE`, so that lines and bars do
not tear each other.
"""

import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from rich.console import Console
from rich.text import Text

from mmtune.errors import ConfigError
from mmtune.lookup import lookup
from mmtune.processes import mark, rank

LEVEL_VARIABLE = "MMTUNE_LOG_LEVEL"
LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
"""What `--log-level` takes. `debug` also shows what the libraries say and is otherwise hidden."""

CONSOLE = Console(stderr=True)
STYLES = {logging.WARNING: "yellow", logging.ERROR: "red"}
WARNINGS_LOGGER = "py.warnings"  # where Python's own `logging.captureWarnings` sends them
QUIET_LIBRARIES = {
    "transformers": "asks for remote code, new keys and hub features that a run here does not need",
    "bitsandbytes": "tells of each layer and step of LLM.int8 that it casts",
    "matplotlib": "tells of the cache of fonts that it builds",
    "accelerate": "tells what it detects of the machine",
}
"""Libraries whose warnings are hidden unless the level is `debug`, and why; a run's text log keeps them."""
QUIET_VARIABLES = {
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
"""What keeps libraries quiet that read the environment; one that is set already stays."""
QUIET_WARNINGS = (
    "'pin_memory' argument is set as true but",  # of a loader on a machine without an accelerator
    "Can't initialize NVML",  # of torch where a CUDA build finds no driver
    "MatMul8bitLt: inputs will be cast",  # bitsandbytes on each layer: the adapters compute in fp32
)
"""How Python warnings begin that say nothing a user could mend. Those of future versions are all hidden."""


def level_of(name: str | None) -> int:
    """Return the level of a name; None takes that of the environment, else `info`.

    Raises:
        ConfigError: no level has this name.
    """
    if name is not None:
        return LEVELS[name]
    given = os.environ.get(LEVEL_VARIABLE) or "info"
    try:
        return lookup(LEVELS, given.lower(), "log level")
    except ConfigError as error:
        raise ConfigError(LEVEL_VARIABLE, error.message) from None


@contextmanager
def log_policy(level: int = logging.INFO) -> Iterator[None]:
    """Hold the policy while a verb, or a program of the user, runs.

    Args:
        level: from which on lines are shown; other ranks than 0 show errors alone, and all of `debug`.
    """
    root, ours = logging.getLogger(), logging.getLogger("mmtune")
    before = root.level, ours.level, warnings.showwarning
    if level > logging.DEBUG:
        for name, value in QUIET_VARIABLES.items():
            os.environ.setdefault(name, value)
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # LLM.int8 has a line for each layer and step
    handler = ConsoleHandler(level)
    root.addHandler(handler)
    root.setLevel(logging.INFO if level == logging.DEBUG else logging.WARNING)
    ours.setLevel(logging.DEBUG)
    warnings.showwarning = log_warning
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(before[0])
        ours.setLevel(before[1])
        warnings.showwarning = before[2]


def log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: IO[str] | None = None,
    line: str | None = None,
) -> None:
    """Log a Python warning as one line; in place of `warnings.showwarning`."""
    text = " ".join(str(message).split())
    is_quiet = issubclass(category, FutureWarning | DeprecationWarning | PendingDeprecationWarning)
    level = logging.DEBUG if is_quiet or text.startswith(QUIET_WARNINGS) else logging.WARNING
    place = Path(filename)
    logger = logging.getLogger(WARNINGS_LOGGER)
    logger.setLevel(logging.DEBUG)
    logger.log(level, "%s (%s, %s/%s:%d)", text, category.__name__, place.parent.name, place.name, lineno)


class ConsoleHandler(logging.Handler):
    """Writes lines to standard error: bare in a terminal, with the time where it is a file or a pipe.

    Of several processes that train together each would say the same: other ranks than 0 show errors alone, marked with
    their rank. At `debug` they show all.

    Args:
        level: from which on lines are shown.
    """

    def __init__(self, level: int):
        self.shows_all = level == logging.DEBUG
        super().__init__(level if rank() == 0 or self.shows_all else logging.ERROR)
        self.mark = mark()

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line, unless a quiet library says less than an error."""
        library = record.name.partition(".")[0]
        if library in QUIET_LIBRARIES and record.levelno < logging.ERROR and not self.shows_all:
            return
        try:
            stamp = time.strftime("%Y-%m-%d %H:%M:%S ", time.localtime(record.created)) if is_a_file() else ""
            kind = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
            text = f"{stamp}{self.mark}{kind}{self.format(record)}".replace("\n", "\n" + " " * len(stamp))
            CONSOLE.print(Text(text, STYLES.get(record.levelno, "")), soft_wrap=True)
        except Exception:
            self.handleError(record)


def hear_transformers() -> None:
    """Let the lines of transformers come to the handlers here: it has one of its own and passes none on."""
    if "transformers" in sys.modules:
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_default_handler()
        transformers_logging.enable_propagation()
        transformers_logging.set_verbosity_warning()


def is_a_file() -> bool:
    """Whether standard error is a file or a pipe, not a terminal and not something in memory."""
    try:
        return not os.isatty(sys.stderr.fileno())
    except (OSError, ValueError, AttributeError):
        return False


class _TextFile(logging.FileHandler):
    """A file whose errors are passed over: where it lies, files that matter are written too, and these say it."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Pass over a full disk."""


class TextLog(logging.Handler):
    """Keeps all lines of a run, those of `debug` too, in a file. Use it in a `with`.

    Until `open` the lines are held back, so that a run that fails before its first step leaves no file.

    Args:
        path: the file; lines are appended, each is on the disk's way when the call returns.
    """

    MOST_HELD = 10_000

    def __init__(self, path: Path):
        super().__init__(logging.DEBUG)
        self.path = path
        self.held: list[logging.LogRecord] = []
        self.file: logging.FileHandler | None = None
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))

    def __enter__(self) -> "TextLog":
        if rank() == 0:
            hear_transformers()
            logging.getLogger().addHandler(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        logging.getLogger().removeHandler(self)
        if self.file is not None:
            if error is not None:
                self.emit(_record_of(error, at))
            with suppress(OSError):
                self.file.close()

    def open(self) -> None:
        """Write what was held back, and from now on each line as it comes."""
        if rank() == 0:
            self.file = _TextFile(self.path, encoding="utf-8")
            self.file.setFormatter(self.formatter)
            for record in self.held:
                self.file.emit(record)
            self.held.clear()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one line."""
        if self.file is not None:
            self.file.emit(record)
        elif len(self.held) < self.MOST_HELD:
            self.held.append(record)


def _record_of(error: BaseException, at: TracebackType | None) -> logging.LogRecord:
    """Return the line that ends the log of a run that failed, with its traceback."""
    info: Any = (type(error), error, at)
    return logging.LogRecord(__name__, logging.ERROR, __file__, 0, "the run ended: %r", (error,), info)
