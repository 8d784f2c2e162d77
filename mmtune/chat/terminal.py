"""The dialogue in a terminal: a simple loop."""

from collections.abc import Callable
from typing import Any

from rich.console import Console

from mmtune.chat.session import ChatSession
from mmtune.chat.switching import UNLOADED, AdapterSwitch
from mmtune.errors import MMTuneError

QUIET: dict[str, Any] = {"markup": False, "highlight": False, "style": "dim"}
HELP = (
    "/image PATH shows an image, /reset starts anew, /adapter lists runs and switches, /exit leaves (so does Ctrl-D)."
)


def chat_loop(session: ChatSession, console: Console, image: str | None = None, *, switch: AdapterSwitch) -> None:
    """Read questions and print answers until the user leaves.

    Args:
        session: the dialogue, with the parts of the switch.
        console: where to write; questions come from standard input.
        image: shown with the first question.
        switch: which run answers.
    """
    console.print(
        f"[dim]{HELP}[/dim]" + (f" [dim]The first question is about {image}.[/dim]" if image else ""),
        highlight=False,
    )
    waiting: tuple[str, ...] = (image,) if image else ()
    while (text := _read(console)) not in ("/exit", "EXIT"):
        if not text:
            continue
        if text in ("/reset", "RESET"):
            session.reset()
            waiting = (image,) if image else ()
            console.print("[dim]the dialogue starts anew[/dim]")
        elif text.split()[0] == "/adapter":
            if _switch(switch, console, text.removeprefix("/adapter").strip()):
                session.reset()
                waiting = (image,) if image else ()
        elif text == "/help":
            console.print(f"[dim]{HELP}[/dim]", highlight=False)
        elif text.startswith("/image "):
            waiting = (*waiting, text.removeprefix("/image ").strip())
        elif text.startswith("/"):
            console.print(f"unknown command {text.split()[0]}. {HELP}", markup=False, highlight=False)
        else:
            waiting = _ask(session, console, text, waiting)


def call_printer(console: Console) -> Callable[[str, str], None]:
    """Return what shows a call of a tool and its result, each on a line."""

    def tell(call: str, result: str) -> None:
        for title, text in (("call", call), ("result", result)):
            line = " ".join(text.split())
            console.print(f"{title}: {line if len(line) <= 200 else line[:200] + '...'}", **QUIET)

    return tell


def _read(console: Console) -> str:
    """Return what the user types; Ctrl-D and Ctrl-C leave."""
    try:
        return console.input("[bold cyan]you:[/] ").strip()
    except (EOFError, KeyboardInterrupt):
        console.print()
        return "/exit"


def _switch(switch: AdapterSwitch, console: Console, name: str) -> bool:
    """List the runs, or let one of them answer; return whether another one does now."""
    if not name:
        names = [f"{known} (answers)" if known == switch.active else known for known in (*switch.names, UNLOADED[0])]
        console.print(f"{', '.join(names)}. /adapter NAME switches.", markup=False, highlight=False)
        return False
    try:
        switch.select(name)
    except MMTuneError as error:
        console.print(str(error), markup=False, style="red", highlight=False)
        return False
    now = "no adapter: the base model answers" if switch.active in UNLOADED else f"{switch.active} answers"
    console.print(f"{now}; the dialogue starts anew", markup=False, style="dim", highlight=False)
    return True


def _ask(session: ChatSession, console: Console, text: str, images: tuple[str, ...]) -> tuple[str, ...]:
    """Print the answer; return the images that are still to be shown."""
    try:
        answer = session.ask(text, images)
    except MMTuneError as error:
        console.print(str(error), markup=False, style="red", highlight=False)
        return ()
    console.print("[bold green]model:[/] ", end="")
    console.print(answer, markup=False, highlight=False)
    return ()
