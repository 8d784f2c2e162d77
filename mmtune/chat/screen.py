"""Text on a terminal that comes in pieces: words are kept whole at the right edge."""

from collections.abc import Callable

from rich.cells import cell_len

from mmtune.plain_text import printable


class WordWrap:
    """Writes a text that comes in pieces, and begins a new line before a word that would be cut by the edge.

    A word is written when its end is known. Wide characters, which Chinese writes without spaces, are words of one.

    Args:
        write: to the terminal.
        width: columns of the terminal.
        column: where the text begins.
    """

    def __init__(self, write: Callable[[str], None], width: int, column: int = 0):
        self.write, self.width, self.column = write, width, column
        self.space = self.word = ""

    def add(self, text: str) -> None:
        """Take the next piece."""
        for character in printable(text).expandtabs(4):
            if character == "\n":
                self._end_word()
                self.write("\n")
                self.space, self.column = "", 0
            elif character.isspace():
                self._end_word()
                self.space += character
            else:
                if self.word and (cell_len(character) == 2 or cell_len(self.word[-1]) == 2):
                    self._end_word()
                self.word += character

    def end(self) -> None:
        """Write the last word."""
        self._end_word()

    def _end_word(self) -> None:
        if not self.word:
            return
        size = cell_len(self.word)
        if self.column and self.column + len(self.space) + size > self.width >= size:
            self.write("\n")
            self.space, self.column = "", 0
        self.write(self.space + self.word)
        self.column += len(self.space) + size
        if self.column > self.width:  # a word longer than a line, which the terminal cut
            self.column = self.column % self.width or self.width
        self.space = self.word = ""
