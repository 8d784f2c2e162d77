"""Runs an application with uvicorn until a signal, and then lets what was begun finish."""

import asyncio
import logging
import socket
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from mmtune.serve.worker import Worker

logger = logging.getLogger(__name__)

MAX_CONNECTIONS = 1000
HEAD_SECONDS = 30.0
"""In which the head of a request must have come. uvicorn itself waits for ever."""
SECONDS_TO_SEND = 5.0
"""What the last answers have to be sent in when the server ends."""


def serve_until_signal(app: Any, worker: Worker, listener: socket.socket, drain_seconds: float) -> None:
    """Serve until Ctrl-C or SIGTERM; then finish what was taken, refusing what is new. A second signal ends at once.

    Args:
        app: an ASGI application whose answers come from `worker`.
        worker: is drained, and then empty.
        listener: bound.
        drain_seconds: how long what was taken may need.
    """
    asyncio.run(_serve(app, worker, listener, drain_seconds))


def uvicorn_config(app: Any) -> uvicorn.Config:
    """Return how uvicorn runs an application: no lines of its own, no trust in headers of proxies, patience limited."""
    return uvicorn.Config(
        app,
        http=_impatient_protocol,  # type: ignore[arg-type]  # it calls what it gets
        ws="none",
        lifespan="auto",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_graceful_shutdown=int(SECONDS_TO_SEND),
    )


async def _serve(app: Any, worker: Worker, listener: socket.socket, drain_seconds: float) -> None:
    server, loop = uvicorn.Server(uvicorn_config(app)), asyncio.get_running_loop()
    asked_to_end = asyncio.Event()

    def end() -> None:
        if asked_to_end.is_set():
            worker.cancel_all()
            server.force_exit = True
        asked_to_end.set()

    def on_signal(sig: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(end)

    server.handle_exit = on_signal  # type: ignore[method-assign]  # uvicorn's own closes the door before all is done
    serving, ending = asyncio.ensure_future(server.serve([listener])), asyncio.ensure_future(asked_to_end.wait())
    await asyncio.wait({serving, ending}, return_when=asyncio.FIRST_COMPLETED)
    if not serving.done():
        logger.info(
            "ending: what was asked is still answered, for up to %g s; Ctrl-C again ends at once", drain_seconds
        )
        if not await asyncio.to_thread(worker.drain, drain_seconds):
            logger.warning("not all was answered in %g s; the rest was cancelled (--drain-seconds)", drain_seconds)
        server.should_exit = True
    ending.cancel()
    await serving


def _impatient_protocol(
    config: uvicorn.Config, server_state: Any, app_state: dict[str, Any], _loop: asyncio.AbstractEventLoop | None = None
) -> H11Protocol:
    """Return uvicorn's protocol for one connection, which ends when no request comes for `HEAD_SECONDS`.

    That holds too for what follows a reply: uvicorn passes over the rest of a body that was refused, so that the client
    sees why, and this ends a body without end.
    """
    protocol = H11Protocol(config, server_state, app_state, _loop)
    loop = protocol.loop

    def look(cycle_before: Any) -> None:
        if protocol.transport is None or protocol.transport.is_closing():
            return
        cycle = protocol.cycle
        is_idle = cycle is None or cycle.response_complete
        if is_idle and cycle is cycle_before:
            protocol.transport.abort()
            return
        loop.call_later(HEAD_SECONDS, look, cycle if is_idle else None)

    loop.call_later(HEAD_SECONDS, look, None)
    return protocol
