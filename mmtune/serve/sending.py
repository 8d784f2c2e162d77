"""Sends the answer of a job: as a whole, or as a stream that begins with it. Who goes away cancels it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable
from contextlib import suppress
from typing import Any, TypeVar

from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.requests import ClientDisconnect, Request

from mmtune.errors import MMTuneError
from mmtune.serve.answering import Begun
from mmtune.serve.chat_request import ChatRequest
from mmtune.serve.job import Job
from mmtune.serve.refusals import Refused, as_refusal, error_object
from mmtune.serve.replies import DONE, Completion, event
from mmtune.serve.request_log import note
from mmtune.serve.worker import Draining

T = TypeVar("T")
STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
logger = logging.getLogger(__name__)


async def reply_with(request: Request, asked: ChatRequest, job: Job) -> Response:
    """Return an answer as a whole, or as a stream that has begun.

    Args:
        request: whose client gets it.
        asked: what it asks.
        job: that answers it.

    Raises:
        ClientDisconnect: the client went away; the job is cancelled.
        MMTuneError: it cannot be answered.
    """
    try:
        if not asked.is_stream:
            return JSONResponse(await unless_gone(request, _whole(request, asked, job)))
        events = _events(request, asked, job)
        first = await unless_gone(request, anext(events))
    except BaseException:
        job.cancel()
        raise
    return StreamingResponse(_behind(first, events), media_type="text/event-stream", headers=STREAM_HEADERS)


async def _whole(request: Request, asked: ChatRequest, job: Job) -> dict[str, Any]:
    """Return an answer when it is whole."""
    texts: list[str] = []
    begun = Begun(0)
    with job:
        async for piece in job:
            if isinstance(piece, Begun):
                begun = piece
            else:
                texts.append(piece)
    if job.result is None:
        raise Draining
    note(request, asked.model, begun, job.result)
    return Completion(asked.model).whole("".join(texts), begun.num_prompt_tokens, job.result)


async def _events(request: Request, asked: ChatRequest, job: Job) -> AsyncIterator[str]:
    """Yield the events of a stream; the first one when the answer begins."""
    completion = Completion(asked.model)
    begun = None
    try:
        with job:
            async for piece in job:
                if isinstance(piece, Begun):
                    begun = piece
                    yield event(completion.chunk({"role": "assistant", "content": ""}))
                else:
                    yield event(completion.chunk({"content": piece}))
            if begun is None or job.result is None:
                raise Draining
    except Exception as error:
        if begun is None:
            raise  # nothing was sent: the reply is an error as a whole
        refused = as_refusal(error) if isinstance(error, MMTuneError) else _of_ours(error)
        yield event(error_object(refused))
        return
    note(request, asked.model, begun, job.result)
    yield event(completion.chunk({}, job.result.reason))
    if asked.has_usage:
        yield event(completion.usage_chunk(begun.num_prompt_tokens, job.result))
    yield DONE


def _of_ours(error: Exception) -> Refused:
    """Log a mistake of our own, and return what the client is told of it."""
    logger.error("an answer failed", exc_info=error)
    return Refused(500, "server", "it failed. Its log says why.", "internal_error")


async def _behind(first: str, rest: AsyncIterator[str]) -> AsyncIterator[str]:
    yield first
    async for each in rest:
        yield each


async def unless_gone(request: Request, answer: Awaitable[T]) -> T:
    """Return what an awaitable gives, or cancel it when the client goes away.

    Raises:
        ClientDisconnect: it went away.
    """
    made, gone = asyncio.ensure_future(answer), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({made, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not made.done():
            raise ClientDisconnect
        return made.result()
    finally:
        gone.cancel()
        if not made.done():
            made.cancel()
            with suppress(asyncio.CancelledError):
                await made


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
