"""A dialogue whose lines come from a pipe or a file, and answers as programs read them."""

import io
import json
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

from mmtune.chat.commands import take_line
from mmtune.chat.dialogue import Dialogue
from mmtune.chat.session import Tell
from mmtune.conversation import Message
from mmtune.errors import DataError, MMTuneError
from mmtune.plain_text import printable


class LineScreen:
    """A dialogue as programs read it: answers on one stream, all else on another.

    Args:
        answers: where answers go, each followed by a line end; a terminal gets them as they come, without characters
            that would steer it.
        others: where notes and errors go.
    """

    def __init__(self, answers: TextIO, others: TextIO):
        self.answers, self.others = answers, others

    def note(self, text: str) -> None:
        """Show what is no answer."""
        print(printable(text), file=self.others)

    def error(self, error: MMTuneError) -> None:
        """Show what went wrong."""
        print(printable(f"mmtune: {error}"), file=self.others)

    def begin(self) -> Tell | None:
        """Begin an answer."""
        return self._write if self.answers.isatty() else None

    def end(self, question: Message, answer: str) -> None:
        """End an answer."""
        self._write("\n" if self.answers.isatty() else f"{answer}\n")

    def say(self, text: str) -> None:
        """Show a line that belongs to the answers."""
        self._write(f"{text}\n")

    def _write(self, text: str) -> None:
        self.answers.write(printable(text) if self.answers.isatty() else text)
        self.answers.flush()


class JsonScreen(LineScreen):
    """The same with a JSON object a line for each answer and each error. Arguments as `LineScreen`."""

    def error(self, error: MMTuneError) -> None:
        """Show what went wrong, on both streams."""
        super().error(error)
        self.write({"error": str(error)})

    def begin(self) -> Tell | None:
        """Begin an answer, which is shown as a whole."""
        return None

    def end(self, question: Message, answer: str) -> None:
        """Show question and answer."""
        text = question.text.removeprefix("\n" * bool(question.images))
        self.write({"question": text, "images": list(question.images), "answer": answer})

    def write(self, value: dict[str, Any]) -> None:
        """Write an object."""
        self.say(json.dumps(value, ensure_ascii=False))


def lines_of(stream: TextIO) -> Iterator[str | DataError]:
    """Yield the lines of a pipe, or what is wrong with one."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(encoding="utf-8", errors="surrogateescape")
    for number, line in enumerate(stream, 1):
        if any("\udc80" <= character <= "\udcff" for character in line):
            yield DataError(f"standard input, line {number}", "it is not UTF-8. Write it as UTF-8.")
        else:
            yield line


def answer_lines(dialogue: Dialogue, lines: Iterable[str | DataError]) -> bool:
    """Take lines until they end or leave; return whether all could be done. What fails is said, the rest goes on."""
    all_done = True
    for line in lines:
        try:
            if isinstance(line, DataError):
                raise line
            if line.strip():
                take_line(dialogue, line)
        except MMTuneError as error:
            dialogue.screen.error(error)
            all_done = False
        if dialogue.is_over:
            break
    return all_done
