"""What stands in front of the page: who may come in, which routes there are, how much is read, which files are given.

Gradio has many routes, and fetches addresses that it is told. Here are the few routes that the page needs, and no
other passes; bodies are looked through before Gradio sees them.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmtune.serve.listening import host_name
from mmtune.serve.web_files import FILE_ROUTE, SHOWN_SUFFIXES, bytes_in, is_within
from mmtune.serve.web_http import (
    FILE_HEADERS,
    HEADERS,
    App,
    Body,
    Message,
    Receive,
    Refused,
    Send,
    Stream,
    answer,
    replayed,
    with_headers,
)
from mmtune.serve.web_login import Door

API = "/gradio_api"
UPLOAD = f"{API}/upload"
ROUTES: list[tuple[str, str]] = [
    ("GET", r"/"),
    ("GET", r"/config/?|/theme\.css|/favicon\.ico|/robots\.txt|/manifest\.json"),
    ("GET", r"/(assets|static)/[\w./@+-]+"),
    ("GET", rf"{API}/(info|app_id|startup-events|theme\.css)/?"),
    ("GET", rf"{API}/queue/data|{API}/heartbeat/\w+|{API}/upload_progress"),
    ("GET", rf"{FILE_ROUTE}.+"),
    ("POST", rf"{API}/queue/join/?|{UPLOAD}|{API}/cancel|{API}/reset/?"),
]
"""Method and pattern of each route that the page needs."""
MAX_MESSAGE_BYTES = 4 * 2**20
"""Of a request that is no upload: a question and the settings. A dialogue itself is kept on this side."""
FILES_AT_ONCE = 8
"""In one upload."""
UPLOAD_OVERHEAD_BYTES = 64 * 1024
UPLOADS_KEPT = 64
"""The folder of uploads takes so many of the largest ones; older ones go after a day."""


@dataclass
class Gate:
    """An ASGI app around another.

    Attributes:
        app: the page.
        folder: of uploads, resolved; the only one whose files are given.
        max_upload_bytes: of one file.
        hosts: names by which the server may be called; empty: any. So no page of another site can call it by a name
            of that site that leads to this machine.
        door: asks for the password; None where none is needed.
        is_ending: asked again and again whether the server ends, so that no open page keeps it.
    """

    app: App
    folder: Path
    max_upload_bytes: int
    hosts: frozenset[str] = field(default_factory=frozenset)
    door: Door | None = None
    is_ending: Callable[[], bool] = lambda: False

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it here."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
        else:
            try:
                await self._pass(scope, receive, send)
            except Refused as refused:
                await answer(send, refused.status, refused.reason)

    async def _pass(self, scope: Message, receive: Receive, send: Send) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        path, method = scope["path"], "GET" if scope["method"] == "HEAD" else scope["method"]
        self._check_origin(headers)
        if self.door is not None and await self.door.answers(path, method, headers, receive, send):
            return
        if not any(method == known and re.fullmatch(route, path) for known, route in ROUTES):
            raise Refused(404, "There is no such page.")
        if path.startswith(FILE_ROUTE):
            self._check_file(path)
            await self.app(scope, receive, with_headers(send, FILE_HEADERS))
        elif path == UPLOAD:
            body = self._upload(headers, receive)
            await self.app(scope, body.read, body.guard(with_headers(send, HEADERS)))
        elif method == "POST":
            receive = await self._looked_through(headers, receive)
            await self.app(scope, receive, with_headers(send, HEADERS))
        else:
            stream = Stream(receive, with_headers(send, HEADERS), self.is_ending)
            await self.app(scope, stream.read, stream.put)
            await stream.end()

    def _check_origin(self, headers: dict[str, str]) -> None:
        host = headers.get("host", "")
        if self.hosts and host_name(host) not in self.hosts:
            raise Refused(403, "This page is not called by that name.")
        if "origin" in headers and headers["origin"].partition("://")[2] != host:
            raise Refused(403, "Another site may not use this page.")

    def _check_file(self, path: str) -> None:
        name = path.removeprefix(FILE_ROUTE)  # the server has decoded it
        if not name.lower().endswith(SHOWN_SUFFIXES) or not is_within(name, self.folder):
            raise Refused(403, "There is no such file.")

    def _upload(self, headers: dict[str, str], receive: Receive) -> Body:
        """Return what reads an upload; of each file in it Gradio holds the limit."""
        if bytes_in(self.folder) > UPLOADS_KEPT * self.max_upload_bytes:
            raise Refused(503, "There is no room for more uploads.")
        body = Body(receive, FILES_AT_ONCE * self.max_upload_bytes + UPLOAD_OVERHEAD_BYTES)
        body.check_length(headers)
        return body

    async def _looked_through(self, headers: dict[str, str], receive: Receive) -> Receive:
        """Read a message, and return what reads it again where all files that it names are uploads."""
        body = Body(receive, MAX_MESSAGE_BYTES)
        body.check_length(headers)
        content = await body.whole()
        try:
            message = json.loads(content or b"null")
        except (ValueError, RecursionError):
            raise Refused(400, "This is no JSON.") from None
        if not all(is_within(name, self.folder) for name in named_files(message)):
            raise Refused(403, "There is no such file.")
        return replayed(content, receive)


def named_files(value: Any) -> Iterator[str]:
    """Yield the path of each file that a message names, however deep: Gradio would open it, or fetch it."""
    if isinstance(value, dict):
        if isinstance(value.get("path"), str):
            yield value["path"]
        for each in value.values():
            yield from named_files(each)
    elif isinstance(value, list):
        for each in value:
            yield from named_files(each)
