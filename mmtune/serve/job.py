"""One piece of work for the worker: made in its thread, read piece by piece in another thread or an event loop."""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any

Work = Callable[["Job"], Any]


class Cancelled(KeyboardInterrupt):
    """Nobody wants the rest of a job. Like Ctrl-C, so that a `ChatSession` keeps what was said until then."""


class Job:
    """Work that was handed to a worker. Read it once, by `for` or `async for`, in a `with` that cancels what is left.

    Its pieces wait here until they are read, so that a slow reader never holds the worker; what they may grow to is
    up to the work, such as the longest answer. The error that ended the work is raised behind its last piece. A job
    that was cancelled just ends.

    Args:
        client: whose it is; clients take turns.
        work: called in the worker's thread with this job.
        forget: told that the job was cancelled.

    Attributes:
        result: what the work returned, once it is over.
        was_cancelled: whether somebody cancelled it.
        is_over: whether it ended, was cancelled while it waited, or had to go.
    """

    def __init__(self, client: str, work: Work, forget: Callable[["Job"], None]):
        self.client, self._work, self._forget = client, work, forget
        self.result: Any = None
        self.was_cancelled = self.is_over = False
        self._error: Exception | None = None
        self._pieces: deque[Any] = deque()
        self._changed = threading.Condition()
        self._wake: Callable[[], Any] | None = None

    def tell(self, piece: Any) -> None:
        """Hand a piece to the reader. For the work, in the worker's thread.

        Raises:
            Cancelled: nobody wants it.
        """
        self.check()
        self._change(piece)

    def check(self) -> None:
        """Find out whether to go on. For the work, as often as it likes.

        Raises:
            Cancelled: nobody wants the rest.
        """
        if self.was_cancelled:
            raise Cancelled

    def cancel(self) -> None:
        """Stop the work at its next piece, or before it begins."""
        if not self.is_over:
            self.was_cancelled = True
            self._forget(self)

    def run(self) -> None:
        """Do the work. For the worker; never raises."""
        try:
            self.check()
            self.result = self._work(self)
            self.end()
        except Cancelled:
            self.end()
        except Exception as error:
            self.end(error)
        except BaseException as error:  # the thread has to live on
            self.end(RuntimeError(f"{type(error).__name__}: {error}"))

    def end(self, error: Exception | None = None) -> None:
        """End the job, with the error that its reader gets. For the worker."""
        self._error = error
        self.is_over = True
        self._change()

    def _change(self, *pieces: Any) -> None:
        with self._changed:
            self._pieces.extend(pieces)
            wake, self._wake = self._wake, None
            self._changed.notify_all()
        if wake is not None:
            with suppress(RuntimeError):  # the event loop of the reader was closed
                wake()

    def __iter__(self) -> Iterator[Any]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pieces or self.is_over)
                if not self._pieces:
                    break
                piece = self._pieces.popleft()
            yield piece
        if self._error is not None:
            raise self._error

    async def __aiter__(self) -> AsyncIterator[Any]:
        loop = asyncio.get_running_loop()
        while True:
            with self._changed:
                if self._pieces:
                    piece, news = self._pieces.popleft(), None
                elif self.is_over:
                    break
                else:
                    news = loop.create_future()
                    self._wake = partial(loop.call_soon_threadsafe, _resolve, news)
            if news is None:
                yield piece
            else:
                await news
        if self._error is not None:
            raise self._error

    def __enter__(self) -> "Job":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.cancel()


def _resolve(news: "asyncio.Future[None]") -> None:
    if not news.done():
        news.set_result(None)
