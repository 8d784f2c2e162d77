"""The page over the tiny model that knows one dialogue by heart, on a real socket, and a client that speaks with it."""

import asyncio
import json
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn
from talk_workspace import SYSTEM, at_home, home, parts

from mmtune.chat.generate import Decoding
from mmtune.serve.listening import bind
from mmtune.serve.server import uvicorn_config
from mmtune.serve.uploads import UploadLimits
from mmtune.serve.web_models import AFTER, BEFORE, Side
from mmtune.serve.worker import Worker

httpx = pytest.importorskip("httpx", reason="needs the extra `web`")
pytest.importorskip("gradio", reason="needs the extra `web`")

__all__ = ["at_home", "home", "parts", "sides", "worker"]

LIMITS = UploadLimits(max_bytes=200_000, max_pixels=1_000_000)
DECODING = Decoding(max_new_tokens=40)


def nothing():
    """Sides that share one model have nothing to switch."""


@pytest.fixture(scope="module")
def sides(parts):
    return [Side(AFTER, "talk", parts, nothing, SYSTEM), Side(BEFORE, "", parts, nothing, SYSTEM)]


@pytest.fixture(scope="module")
def worker():
    with Worker(size=8) as made:
        yield made


@contextmanager
def serving(sides, worker, runs, examples=(), password=None, *, is_local=True, compares=False):
    """Give the URL of the page, served in a thread of its own."""
    from mmtune.serve.web import PageOptions
    from mmtune.serve.web_app import WebOptions, web_app

    options = WebOptions(PageOptions(DECODING, 0, Path(runs), compares), LIMITS, None, password, is_local)
    listener = bind("127.0.0.1", 0)
    with web_app(sides, worker, examples, options) as app:
        server = uvicorn.Server(uvicorn_config(app))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = server.force_exit = True
            thread.join(30)
            assert not thread.is_alive()


class Browser:
    """Speaks with the page as a browser does: its config, uploads, events and their answers.

    Args:
        url: of the page.
        language: that it asks for.
    """

    def __init__(self, url, language="en"):
        self.http = httpx.Client(base_url=url, timeout=60, headers={"accept-language": language})
        self.session = f"tab{id(self)}"
        self.config = self.http.get("/config").json()
        self.ids = {
            each["props"]["elem_id"]: each["id"] for each in self.config["components"] if each["props"].get("elem_id")
        }

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.http.close()

    def upload(self, name, data):
        return self.http.post("/gradio_api/upload", files={"files": (name, data)})

    def image(self, name, data):
        """Upload an image, and return it as an event takes it."""
        (path,) = self.upload(name, data).json()
        return {"path": path, "orig_name": name, "meta": {"_type": "gradio.FileData"}}

    def event(self, elem_id, name):
        """The event of a component."""
        target = [self.ids[elem_id], name]
        return next(each for each in self.config["dependencies"] if target in [list(pair) for pair in each["targets"]])

    def join(self, event, data):
        body = {"data": data, "fn_index": event["id"], "session_hash": self.session, "event_data": None}
        return self.http.post("/gradio_api/queue/join", json=body)

    def messages(self, event_id=None):
        """What the server says until an event is over; None: the first one that is."""
        with self.http.stream("GET", f"/gradio_api/queue/data?session_hash={self.session}") as reply:
            for line in reply.iter_lines():
                if line.startswith("data: "):
                    message = json.loads(line.removeprefix("data: "))
                    yield message
                    is_over = message["msg"] == "process_completed" and event_id in (None, message["event_id"])
                    if is_over or message["msg"] == "close_stream":
                        return

    def values(self, elem_id, name, **given):
        """What an event reads, as the page begins; `given` are values by elem_id, with `_` for `-`."""
        found = {each["id"]: each["props"].get("value") for each in self.config["components"]}
        found |= {self.ids[key.replace("_", "-")]: value for key, value in given.items()}
        return [found[number] for number in self.event(elem_id, name)["inputs"]]

    def ask(self, text, *images, **given):
        """Ask, and return what the page shows then: the line below and the dialogues."""
        question = {"text": text, "files": [*images]}
        return self.shown(self.use("question", "submit", self.values("question", "submit", question=question, **given)))

    def press(self, elem_id, **given):
        """Press a button, and return what the page shows then."""
        return self.shown(self.use(elem_id, "click", self.values(elem_id, "click", **given)))

    def shown(self, changed):
        names = {"status": "status", "after": "chat-after", "before": "chat-before", "saved": "saved"}
        found = {key: changed.get(self.ids.get(name)) for key, name in names.items()}
        return {key: value for key, value in found.items() if isinstance(value, str)}  # else it stays as it is

    def use(self, elem_id, name, data):
        """Let an event happen; return what it changed at last, by the id of the component."""
        event = self.event(elem_id, name)
        reply = self.join(event, data)
        assert reply.status_code == 200, reply.text
        last = list(self.messages())[-1]
        assert last["success"], last
        return dict(zip(event["outputs"], last["output"]["data"], strict=True))
