"""Small pieces of HTTP for what stands in front of the page: bodies with a limit, answers, headers for browsers."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]
Header = tuple[bytes, bytes]

POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "font-src 'self' data:; img-src 'self' data: blob:; connect-src 'self'; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'none'"
)
"""What the browser may load: nothing from elsewhere, whatever a page or an answer says. Gradio's own scripts stand in
the page and make functions of texts, so that these two are allowed."""
HEADERS: list[Header] = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
FILE_HEADERS: list[Header] = [(b"content-security-policy", b"sandbox; default-src 'none'"), *HEADERS[1:]]
"""Of uploads: nothing in one may act."""


class Refused(Exception):
    """A request that goes no further.

    Args:
        status: of HTTP.
        reason: in one line.
    """

    def __init__(self, status: int, reason: str):
        self.status, self.reason = status, reason
        super().__init__(reason)


@dataclass
class Body:
    """A body that is read no further than a limit, whatever it says of its length.

    Attributes:
        receive: of the server.
        most: bytes.
        num_bytes: read so far.
    """

    receive: Receive
    most: int
    num_bytes: int = 0

    @property
    def is_over(self) -> bool:
        """Whether it was longer."""
        return self.num_bytes > self.most

    def check_length(self, headers: dict[str, str]) -> None:
        """Refuse a body that says itself that it is too long.

        Raises:
            Refused: it does.
        """
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > self.most:
            raise self._refused()

    async def read(self) -> Message:
        """Read on.

        Raises:
            Refused: it is too long.
        """
        message = await self.receive()
        self.num_bytes += len(message.get("body", b""))
        if self.is_over:
            raise self._refused()
        return message

    async def whole(self) -> bytes:
        """Read all of it.

        Raises:
            Refused: it is too long, or was cut off.
        """
        parts = []
        while True:
            message = await self.read()
            if message["type"] == "http.disconnect":
                raise Refused(400, "The request was cut off.")
            parts.append(message.get("body", b""))
            if not message.get("more_body"):
                return b"".join(parts)

    def guard(self, send: Send) -> Send:
        """Return what sends an answer, but none to a body that was too long: that one is refused elsewhere."""

        async def put(message: Message) -> None:
            if not self.is_over:
                await send(message)

        return put

    def _refused(self) -> Refused:
        return Refused(413, f"Too large: at most {self.most:,} bytes.")


class Stream:
    """A reply that goes on until the browser leaves, or the server ends.

    Args:
        receive: of the server.
        send: of the server.
        is_ending: asked again and again whether the server ends.
    """

    SECONDS_BETWEEN_LOOKS = 0.2

    def __init__(self, receive: Receive, send: Send, is_ending: Callable[[], bool]):
        self._receive, self._send, self._is_ending = receive, send, is_ending
        self._is_open = False

    async def read(self) -> Message:
        """Wait for the browser to leave; where the server ends, say that it has left."""
        waiting = asyncio.ensure_future(self._receive())
        try:
            while not waiting.done() and not self._is_ending():
                await asyncio.wait({waiting}, timeout=self.SECONDS_BETWEEN_LOOKS)
            return waiting.result() if waiting.done() else {"type": "http.disconnect"}
        finally:
            waiting.cancel()

    async def put(self, message: Message) -> None:
        """Send on."""
        self._is_open = message["type"] == "http.response.start" or bool(message.get("more_body"))
        await self._send(message)

    async def end(self) -> None:
        """End a reply that its app left open."""
        if self._is_open:
            await self.put({"type": "http.response.body", "body": b""})


def replayed(body: bytes, receive: Receive) -> Receive:
    """Return what reads a body that was read already, and then what comes after it."""
    is_read = False

    async def read() -> Message:
        nonlocal is_read
        if is_read:
            return await receive()
        is_read = True
        return {"type": "http.request", "body": body, "more_body": False}

    return read


def with_headers(send: Send, headers: list[Header]) -> Send:
    """Return what sends an answer with headers in place of its own of the same names."""
    names = {name for name, _ in headers}

    async def put(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = [pair for pair in message.get("headers", []) if pair[0].lower() not in names]
            message = {**message, "headers": [*own, *headers]}
        await send(message)

    return put


async def answer(send: Send, status: int, words: str, kind: str = "text/plain", more: tuple[Header, ...] = ()) -> None:
    """Answer a request."""
    body = words.encode()
    headers = [(b"content-type", f"{kind}; charset=utf-8".encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *HEADERS, *more]})
    await send({"type": "http.response.body", "body": body})
