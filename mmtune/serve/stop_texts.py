"""Ends an answer at a text, wherever the pieces that it comes in are cut."""

from collections.abc import Callable, Sequence


class StopFound(Exception):
    """The answer has come to one of the texts."""


class StopScanner:
    """Passes an answer on, up to a stop text. What may become one is held back until it is known.

    Args:
        stops: the texts, each of a character or more.
        tell: told the pieces that are certain.
    """

    def __init__(self, stops: Sequence[str], tell: Callable[[str], None]):
        self.stops, self.tell = stops, tell
        self.held = ""

    def add(self, piece: str) -> None:
        """Take the next piece.

        Raises:
            StopFound: a stop text is there; all before it was told.
        """
        self.held += piece
        places = ((self.held.find(stop), len(stop)) for stop in self.stops)
        ends = [(start + size, start) for start, size in places if start >= 0]
        if ends:
            self._tell(min(ends)[1])  # of the text that is whole first, so that no cut of the pieces matters
            raise StopFound
        self._tell(len(self.held) - max((self._begun(stop) for stop in self.stops), default=0))

    def end(self) -> None:
        """Tell what was held back: the answer is over, and it was no stop text."""
        self._tell(len(self.held))

    def _begun(self, stop: str) -> int:
        """How many characters at the end may be the beginning of a stop text."""
        longest = min(len(stop) - 1, len(self.held))
        return next((size for size in range(longest, 0, -1) if self.held.endswith(stop[:size])), 0)

    def _tell(self, end: int) -> None:
        told, self.held = self.held[:end], self.held[end:]
        if told:
            self.tell(told)
