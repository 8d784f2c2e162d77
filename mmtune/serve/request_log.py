"""A log line for each request: who, what, how long. Never what was said."""

import logging
import time

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mmtune.serve.answering import Begun, Ended

logger = logging.getLogger(__name__)


def note(request: Request, model: str, begun: Begun | None = None, ended: Ended | None = None) -> None:
    """Keep what the line of a request will say of its answer."""
    request.state.model = model
    if begun is not None and ended is not None:
        request.state.tokens = f"{begun.num_prompt_tokens}+{ended.num_answer_tokens} tokens, {ended.reason}"


class RequestLog:
    """Logs a line when a request has its reply.

    Args:
        app: what replies.
    """

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and log it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = time.monotonic(), 499  # where nothing was sent, the client went away

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, sending)
        except Exception:
            status = 500
            raise
        finally:
            client = scope["client"][0] if scope.get("client") else "-"
            said = scope.get("state", {})
            about = ", ".join(said[key] for key in ("model", "tokens") if key in said)
            path = scope["path"].encode("unicode_escape").decode()[:80]  # a line stays a line
            seconds = time.monotonic() - start
            level = logging.DEBUG if path == "/health" else logging.INFO
            logger.log(level, "%s %s %s %d %.1f s %s", client, scope["method"], path, status, seconds, about)
