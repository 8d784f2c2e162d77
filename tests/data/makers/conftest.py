"""The scripts of `data_tools/`, run in this process, and a chat completions endpoint on a real socket."""

import json
import re
import runpy
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

DATA_TOOLS = Path(__file__).resolve().parents[3] / "data_tools"


@pytest.fixture
def tool(desk):
    """Return a function that runs a script's `main` with arguments and returns its exit code."""

    def run(name, *argv):
        return runpy.run_path(str(DATA_TOOLS / f"{name}.py"))["main"]([str(word) for word in argv])

    return run


@pytest.fixture
def read_lines():
    return lambda path: [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def usable_answer(body):
    """What a good model says: as many pairs as the prompt asks for."""
    count = int(re.search(r"exactly (\d+)|(\d+) 个", body["messages"][1]["content"][0]["text"]).expand(r"\1\2"))
    return json.dumps({"pairs": [{"question": f"Question {n}?", "answer": f"Answer {n}."} for n in range(count)]})


def completion(text):
    return {"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]}


@dataclass
class Stub:
    """An endpoint: `answer(number, body)` returns (status, payload, headers) for the request of that number, from 1."""

    url: str = ""
    answer: object = None
    requests: list = field(default_factory=list)
    lock: object = field(default_factory=threading.Lock)

    @property
    def bodies(self):
        return [body for _path, _headers, body in self.requests]


@pytest.fixture
def stub():
    stub = Stub(answer=lambda number, body: (200, completion(usable_answer(body)), {}))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with stub.lock:
                stub.requests.append((self.path, dict(self.headers), body))
                number = len(stub.requests)
            status, payload, headers = stub.answer(number, body)
            content = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request, client_address):
            pass  # a client that ran out of patience

    server = Server(("127.0.0.1", 0), Handler)
    stub.url = f"http://127.0.0.1:{server.server_port}/v1"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield stub
    server.shutdown()
    server.server_close()
