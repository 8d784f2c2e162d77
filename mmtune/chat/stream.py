"""The text of an answer while it is made, in pieces that are never half a character."""

from collections.abc import Callable

REPLACEMENT = "\ufffd"
"""What decoders write for bytes that are no character, or not yet."""


class TextStream:
    """Tells an answer piece by piece as its tokens come.

    What may still change is held back: bytes of a character that is not whole, and space at the end, which an answer
    does not have.

    Args:
        decode: from the ids of an answer to its text.
        tell: told each piece.
    """

    def __init__(self, decode: Callable[[list[int]], str], tell: Callable[[str], None]):
        self.decode, self.tell = decode, tell
        self.ids: list[int] = []
        self.told = ""

    def add(self, token: int) -> None:
        """Take the next token."""
        self.ids.append(token)
        self._tell(self.decode(self.ids).rstrip(REPLACEMENT).rstrip())

    def end(self) -> None:
        """Tell what was held back."""
        self._tell(self.decode(self.ids))

    def _tell(self, text: str) -> None:
        """Tell what is new. Where a byte spoils characters that were told, what they became is told behind them."""
        if self.told.startswith(text):
            return
        pairs = enumerate(zip(self.told, text, strict=False))  # as far as the shorter one goes
        shared = next((number for number, (one, other) in pairs if one != other), len(self.told))
        self.tell(text[shared:])
        self.told = text
