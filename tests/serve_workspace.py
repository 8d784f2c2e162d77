"""A server's parts over the tiny model that knows one dialogue by heart, in this process and over a socket."""

import asyncio
import threading
from contextlib import contextmanager

import pytest
import uvicorn
from talk_workspace import SYSTEM, at_home, home, parts

from mmtune.chat.generate import Decoding
from mmtune.serve.answering import Answerer
from mmtune.serve.api import ApiSettings, build_app
from mmtune.serve.listening import bind
from mmtune.serve.served_models import Served, ServedModels
from mmtune.serve.server import uvicorn_config
from mmtune.serve.worker import Worker

__all__ = ["answerer", "at_home", "home", "parts", "worker"]


@pytest.fixture(scope="module")
def answerer(parts):
    return Answerer(ServedModels(parts, {"talk": Served(lambda: None, SYSTEM)}))


@pytest.fixture(scope="module")
def worker():
    with Worker(size=32) as made:
        yield made


def settings(**changes):
    return ApiSettings(Decoding(max_new_tokens=40), **changes)


@contextmanager
def serving(answerer, worker, **changes):
    """Give the URL of a real server in a thread of its own."""
    listener = bind("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn_config(build_app(answerer, worker, settings(**changes))))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = server.force_exit = True
        thread.join(20)
        assert not thread.is_alive()


class Occupied:
    """A worker whose thread does nothing else until it is let go. Use it in a `with`."""

    def __init__(self, worker):
        self.runs, self.may_end = threading.Event(), threading.Event()
        self.worker = worker

    def __enter__(self):
        self.job = self.worker.submit("occupier", self._work)
        assert self.runs.wait(20)
        return self

    def __exit__(self, *_):
        self.may_end.set()
        list(self.job)

    def _work(self, job):
        self.runs.set()
        assert self.may_end.wait(60)
