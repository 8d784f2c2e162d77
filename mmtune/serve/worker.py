"""The one thread that a model answers in, and who is next. It knows no models: what it runs is handed to it.

A model, its adapters and the random numbers of draws belong to this thread: whatever touches them is a job. So jobs
never meet, and an answer is the same alone and under load. For a page, whose dialogues are `ChatSession`s:

    worker = Worker()

    def work(job):                      # in the worker's thread
        switch.select("owls")           # an AdapterSwitch, where there are several models
        torch.manual_seed(seed)
        return session.ask(question, images, job.tell)

    with worker.submit(client, work) as job:    # Busy: the queue is full; Draining: the server ends
        for piece in job:               # or `async for` in an event loop
            ...                         # leaving the `with` early cancels; a stop button calls job.cancel()
    job.result                          # what `work` returned

`client` is who asks, such as a browser's session: clients take turns. An error of the work, such as a DataError of
an image, is raised at the end of `for`. A cancelled job just ends, and the session keeps what was said until then,
as with Ctrl-C in a terminal.
"""

import math
import threading
import time
from types import TracebackType

from mmtune.errors import MMTuneError
from mmtune.serve.fair_queue import FairQueue
from mmtune.serve.job import Job, Work

SHARE_OF_LAST = 0.2
"""How much the last job counts in the mean of how long a job takes."""


class Busy(MMTuneError):
    """As many wait as may.

    Args:
        num_waiting: how many.
        seconds: until they will have been answered, at the pace so far.
    """

    def __init__(self, num_waiting: int, seconds: int):
        self.seconds = seconds
        super().__init__("queue", f"{num_waiting} wait already, as many as may. Ask again in {seconds} s.")


class Draining(MMTuneError):
    """No more is taken: the server ends."""

    def __init__(self) -> None:
        super().__init__("server", "it is about to end and takes no more. Ask when it runs again.")


class Worker:
    """Runs jobs, one at a time, in a thread of its own. Use it in a `with`, or `close` it.

    Args:
        size: how many jobs wait at most, without the one that runs. In a full queue, the last job of the client with
            the most has to go for a client with fewer: its reader gets `Busy`.
    """

    def __init__(self, size: int = 32):
        self._queue: FairQueue[Job] = FairQueue(size)
        self._running: Job | None = None
        self._is_draining = self._is_hurried = self._is_closed = False
        self._mean_seconds = 1.0
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    @property
    def num_waiting(self) -> int:
        """How many jobs wait."""
        with self._changed:
            return len(self._queue)

    @property
    def is_draining(self) -> bool:
        """Whether no more jobs are taken."""
        return self._is_draining

    def submit(self, client: str, work: Work) -> Job:
        """Let work wait for its turn, and return it as a job.

        Args:
            client: who asks.
            work: called with its job, in the worker's thread.

        Raises:
            Busy: the queue is full.
            Draining: no more is taken.
        """
        job = Job(client, work, self._forget)
        with self._changed:
            if self._is_draining:
                raise Draining
            dropped = self._queue.put(job)
            busy = Busy(len(self._queue), self._seconds())
            self._changed.notify_all()
        if dropped is job:
            raise busy
        if dropped is not None:
            dropped.end(busy)
        return job

    def check_room(self, client: str) -> None:
        """Find out whether `submit` would take a job of a client now, before it is made.

        Raises:
            Busy: the queue is full.
            Draining: no more is taken.
        """
        with self._changed:
            if self._is_draining:
                raise Draining
            if not self._queue.has_room(client):
                raise Busy(len(self._queue), self._seconds())

    def drain(self, seconds: float) -> bool:
        """Take no more, and wait until all that was taken is done, or cancelled when the time is up.

        Args:
            seconds: how long to wait.

        Returns:
            Whether all was done in time.
        """
        with self._changed:
            self._is_draining = True
            self._changed.wait_for(lambda: self._is_idle or self._is_hurried, seconds)
            is_done = self._is_idle and not self._is_hurried
        if not is_done:
            self.cancel_all()
        return is_done

    def cancel_all(self) -> None:
        """Cancel what waits and what runs; who drains waits no more."""
        with self._changed:
            self._is_hurried = self._is_draining
            self._changed.notify_all()
            jobs = [self._queue.take() for _ in range(len(self._queue))]
            running = self._running
        for job in jobs:
            job.was_cancelled = True
            job.end()
        if running is not None:
            running.cancel()

    def close(self, seconds: float = 10.0) -> None:
        """Take no more, cancel all, and wait for the thread as long as that."""
        self.drain(0.0)
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join(seconds)

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def _is_idle(self) -> bool:
        return self._running is None and not len(self._queue)

    def _forget(self, job: Job) -> None:
        """Take a job that was cancelled out of the queue; one that runs finds out by itself."""
        with self._changed:
            was_waiting = self._queue.remove(job)
            self._changed.notify_all()
        if was_waiting:
            job.end()

    def _seconds(self) -> int:
        return max(1, math.ceil(len(self._queue) * self._mean_seconds))

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_closed or len(self._queue))
                if not len(self._queue):
                    return
                job = self._running = self._queue.take()
            start = time.monotonic()
            job.run()
            del job  # or its images stay until the next one
            taken = time.monotonic() - start
            with self._changed:
                self._running = None
                self._mean_seconds += SHARE_OF_LAST * (taken - self._mean_seconds)
                self._changed.notify_all()
