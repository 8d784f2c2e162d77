"""Reads the bodies of requests under limits of size and time, and under one for all of them together."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import Request

from mmtune.serve.refusals import Refused

TOGETHER = 8
"""How many of the largest bodies are held at a time, of all requests together."""


class Bodies:
    """Reads bodies.

    Args:
        max_bytes: of each, with or without a Content-Length.
        seconds: in which it must have come.

    Attributes:
        held: bytes of the requests that are being answered.
    """

    def __init__(self, max_bytes: int, seconds: float = 30.0):
        self.max_bytes, self.seconds = max_bytes, seconds
        self.held = 0

    @asynccontextmanager
    async def held_by(self, request: Request) -> AsyncIterator[bytearray]:
        """Give a body; until the end of the `with` it counts among those that are held.

        Raises:
            Refused: it is too large or too slow, or too much is held already.
            ClientDisconnect: the client went away.
        """
        self._check_length(request)
        body, size = bytearray(), 0
        try:
            async with asyncio.timeout(self.seconds) as deadline:
                async for chunk in request.stream():
                    self._check(size + len(chunk), len(chunk))
                    body += chunk
                    size += len(chunk)
                    self.held += len(chunk)
                deadline.reschedule(None)
                yield body
        except TimeoutError:
            if not deadline.expired():
                raise
            message = f"it did not come within {self.seconds:g} s. Send it faster, or a smaller one."
            raise Refused(408, "body", message) from None
        finally:
            self.held -= size

    def _check(self, size: int, num_new: int) -> None:
        if size > self.max_bytes:
            raise self._too_large(f"more than {self.max_bytes:,} bytes")
        if self.held + num_new > TOGETHER * self.max_bytes:
            message = "other requests hold as much as may be held. Ask again in a moment."
            raise Refused(429, "body", message, "rate_limit_exceeded")

    def _check_length(self, request: Request) -> None:
        """Refuse a body by what it says of itself, before it is read."""
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length[:20]) > self.max_bytes:
            raise self._too_large(f"{int(length[:20]):,} bytes, and {self.max_bytes:,} are taken")

    def _too_large(self, what: str) -> Refused:
        return Refused(413, "body", f"it is too large ({what}). Send smaller images.", "body_too_large")
