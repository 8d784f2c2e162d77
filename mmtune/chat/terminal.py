"""A dialogue in a terminal: editing, history, answers word by word. What a line does is in `commands.py`."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from mmtune.cache import cache_folder
from mmtune.chat.commands import take_line
from mmtune.chat.dialogue import Dialogue
from mmtune.chat.screen import WordWrap
from mmtune.chat.session import Tell
from mmtune.conversation import Message
from mmtune.errors import MMTuneError
from mmtune.plain_text import printable

MODEL = "model: "
ERASE_LINE = "\r\x1b[2K"
HELP = "Ask, or /help. Ctrl-C stops an answer, Ctrl-D leaves."
QUIET: dict[str, Any] = {"markup": False, "highlight": False}


class TerminalScreen:
    """A dialogue as people see it: answers word by word, notes dim, errors red.

    Args:
        console: of the terminal.
    """

    def __init__(self, console: Console):
        self.console = console
        self._wrap: WordWrap | None = None
        self._has_said = False

    def note(self, text: str) -> None:
        """Show what is no answer."""
        self._close()
        self.console.print(printable(text), style="dim", **QUIET)

    def error(self, error: MMTuneError) -> None:
        """Show what went wrong."""
        self._close()
        self.console.print(printable(str(error)), style="red", **QUIET)

    def begin(self) -> Tell:
        """Begin an answer."""
        self.console.print(MODEL, style="bold green", end="", **QUIET)
        self.console.file.flush()
        self._has_said = False
        self._wrap = WordWrap(self._write, self.console.width, len(MODEL))
        return self._wrap.add

    def end(self, question: Message, answer: str) -> None:
        """End an answer; an empty one is shown as such."""
        self._has_said = True
        self._close()

    def _close(self) -> None:
        """Begin a new line behind what an answer has said so far; where it said nothing, take back its beginning."""
        if self._wrap is None:
            return
        self._wrap.end()
        self.console.file.write("\n" if self._has_said else ERASE_LINE)
        self._wrap = None

    def _write(self, text: str) -> None:
        self._has_said = True
        self.console.file.write(text)
        self.console.file.flush()


def chat_loop(dialogue: Dialogue, name: str) -> None:
    """Read questions in a terminal and show answers until the user leaves.

    Args:
        dialogue: on a `TerminalScreen`.
        name: of the model, for the line below.
    """
    read, was_stopped, screen = _reader(dialogue, name), False, dialogue.screen
    screen.note(HELP)
    if dialogue.waiting:
        screen.note(f"with the first question: {', '.join(dialogue.waiting)}")
    while not dialogue.is_over:
        try:
            line = read()
        except EOFError:
            return
        except KeyboardInterrupt:
            if was_stopped:
                return
            was_stopped = True
            screen.note("Ctrl-C again leaves")
            continue
        was_stopped = False
        try:
            with _keys_unseen():
                take_line(dialogue, line)
        except KeyboardInterrupt:
            was_stopped = True
            screen.note("stopped. Ctrl-C again leaves, /retry asks again.")
        except MMTuneError as error:
            screen.error(error)


@contextmanager
def _keys_unseen() -> Iterator[None]:
    """Keep what is typed meanwhile from the screen; it is read with the next line."""
    if os.name == "nt":
        yield
        return
    import termios

    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    now = list(before)
    now[3] &= ~termios.ECHO
    try:
        termios.tcsetattr(terminal, termios.TCSADRAIN, now)
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def _reader(dialogue: Dialogue, name: str) -> Callable[[], str]:
    """Return what reads a line with editing, history and completion."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.formatted_text import FormattedText
    from prompt_toolkit.history import FileHistory, InMemoryHistory
    from prompt_toolkit.key_binding import KeyBindings
    from prompt_toolkit.styles import Style

    from mmtune.chat.completion import CommandCompleter

    path, keys = _history_path(), KeyBindings()

    @keys.add("escape", "enter")
    def _(event: Any) -> None:
        event.current_buffer.insert_text("\n")

    session: PromptSession[str] = PromptSession(
        history=InMemoryHistory() if path is None else FileHistory(str(path)),
        completer=CommandCompleter(),
        complete_while_typing=False,
        key_bindings=keys,
        style=Style.from_dict({"bottom-toolbar": "noreverse dim"}),
    )
    prompt = FormattedText([("bold ansicyan", "you: ")])
    return lambda: session.prompt(prompt, bottom_toolbar=_status(dialogue, name))


def _history_path() -> Path | None:
    """Where lines are remembered, for their user alone; None where nothing can be written."""
    path = cache_folder() / "chat_history"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
    except OSError:
        return None
    return path


def _status(dialogue: Dialogue, name: str) -> str:
    session, switch = dialogue.session, dialogue.switch
    used = f"{len(session.ids)} tokens"
    if session.context is not None:
        used = f"{len(session.ids)} of {session.context} tokens"
    count = len(dialogue.waiting)
    images = f" | {count} image{'s' * (count > 1)} with the next question" if count else ""
    return f"{name if switch is None else switch.active} | {used}{images}"
