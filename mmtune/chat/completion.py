"""What Tab completes in a dialogue: commands, and paths behind those that take one. Loads prompt_toolkit."""

from collections.abc import Iterable

from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document

from mmtune.chat.commands import COMMANDS

TAKES_PATH = ("/image", "/save", "/load", "/adapter")


class CommandCompleter(Completer):
    """Completes the commands of `COMMANDS` and their paths; questions are left alone."""

    def __init__(self) -> None:
        self.paths = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Yield what may stand at the cursor."""
        name, space, argument = document.text_before_cursor.partition(" ")
        if not space:
            return [Completion(each, -len(name)) for each in COMMANDS if name.startswith("/") and each.startswith(name)]
        return self.paths.get_completions(Document(argument), complete_event) if name in TAKES_PATH else ()
