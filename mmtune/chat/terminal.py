"""The dialogue in a terminal: a simple loop."""

from rich.console import Console

from mmtune.chat.session import ChatSession
from mmtune.errors import MMTuneError

HELP = "/image PATH shows an image, /reset starts anew, /exit leaves (so does Ctrl-D)."


def chat_loop(session: ChatSession, console: Console, image: str | None = None) -> None:
    """Read questions and print answers until the user leaves.

    Args:
        session: the dialogue.
        console: where to write; questions come from standard input.
        image: shown with the first question.
    """
    console.print(
        f"[dim]{HELP}[/dim]" + (f" [dim]The first question is about {image}.[/dim]" if image else ""),
        highlight=False,
    )
    waiting: tuple[str, ...] = (image,) if image else ()
    while True:
        try:
            text = console.input("[bold cyan]you:[/] ").strip()
        except (EOFError, KeyboardInterrupt):
            console.print()
            return
        if not text:
            continue
        if text in ("/exit", "EXIT"):
            return
        if text in ("/reset", "RESET"):
            session.reset()
            waiting = (image,) if image else ()
            console.print("[dim]the dialogue starts anew[/dim]")
        elif text == "/help":
            console.print(f"[dim]{HELP}[/dim]", highlight=False)
        elif text.startswith("/image "):
            waiting = (*waiting, text.removeprefix("/image ").strip())
        elif text.startswith("/"):
            console.print(f"unknown command {text.split()[0]}. {HELP}", markup=False, highlight=False)
        else:
            waiting = _ask(session, console, text, waiting)


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
