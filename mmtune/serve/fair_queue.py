"""Which job is next: clients take turns, and a full queue is shared out evenly. No threads, no models."""

from collections import deque
from typing import Generic, Protocol, TypeVar


class Queued(Protocol):
    """What can wait: it belongs to a client."""

    client: str


Item = TypeVar("Item", bound=Queued)


class FairQueue(Generic[Item]):
    """Items of several clients. The clients take turns; the items of one client keep their order.

    Args:
        size: how many items wait at most, of all clients together.
    """

    def __init__(self, size: int):
        assert size >= 1
        self.size = size
        self._waiting: dict[str, deque[Item]] = {}  # the client whose turn it is stands first; none has an empty line

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def put(self, item: Item) -> Item | None:
        """Let an item wait, and return the one that has to go: None, another client's last, or `item` itself.

        A full queue takes an item of a client that has fewer than others: the last item of the client with the most
        goes, so that none keeps the others out.
        """
        if not self.has_room(item.client):
            return item
        dropped = self._waiting[self._greediest()].pop() if len(self) >= self.size else None
        self._waiting.setdefault(item.client, deque()).append(item)
        return dropped

    def has_room(self, client: str) -> bool:
        """Return whether an item of a client would be taken."""
        if len(self) < self.size:
            return True
        return len(self._waiting[self._greediest()]) > len(self._waiting.get(client, ())) + 1

    def take(self) -> Item:
        """Return the next item, of the client whose turn it is."""
        client = next(iter(self._waiting))
        line = self._waiting.pop(client)
        item = line.popleft()
        if line:
            self._waiting[client] = line  # behind all others
        return item

    def remove(self, item: Item) -> bool:
        """Take an item out, and return whether it was waiting."""
        line = self._waiting.get(item.client, deque())
        if item not in line:
            return False
        line.remove(item)
        if not line:
            del self._waiting[item.client]
        return True

    def _greediest(self) -> str:
        return max(self._waiting, key=lambda client: len(self._waiting[client]))
