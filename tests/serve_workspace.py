"""Servers over tiny models: one that knows a dialogue by heart, and one untrained whose answers never end."""

import asyncio
import threading
from contextlib import contextmanager

import pytest
import torch
import uvicorn
from safetensors.torch import load_file, save_file
from talk_workspace import SYSTEM, at_home, home, parts

from mmtune.build import build_parts
from mmtune.chat.generate import Decoding
from mmtune.config import config_from_values
from mmtune.serve.answering import Answerer
from mmtune.serve.api import ApiSettings, build_app
from mmtune.serve.listening import bind
from mmtune.serve.served_models import Served, ServedModels
from mmtune.serve.server import uvicorn_config
from mmtune.serve.worker import Worker
from mmtune.testing import byte_tokenizer, write_tiny_clip, write_tiny_llm

__all__ = ["answerer", "at_home", "endless", "home", "parts", "worker", "write_endless_llm"]


def write_endless_llm(folder):
    """Write an untrained language model that never stops: its likeliest words go round in a circle of letters."""
    write_tiny_llm(folder, seed=4, max_position_embeddings=2**15)
    path = folder / "model.safetensors"
    weights = load_file(path)
    tokens = byte_tokenizer().convert_tokens_to_ids(["</s>", "<|im_end|>"])
    weights["lm_head.weight"][tokens] = 0  # the likeliest of 261 words has more
    save_file(weights, path, {"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def answerer(parts):
    """The model that knows its dialogue by heart."""
    return Answerer(ServedModels(parts, {"talk": Served(lambda: None, SYSTEM)}))


@pytest.fixture(scope="module")
def endless(tmp_path_factory):
    """An untrained model that sees; what it says has no sense and no end."""
    folder = tmp_path_factory.mktemp("endless")
    llm = write_endless_llm(folder / "llm")
    model = {
        "llm": {"name_or_path": str(llm), "chat_template": "chatml", "dtype": "float32"},
        "vision": {"source": "transformers", "name": str(write_tiny_clip(folder / "clip"))},
        "projector": {"kind": "mlp2x_gelu"},
    }
    values = {"model": model, "data": {"train": [{"path": "none.json"}]}, "train": {"output_dir": "run"}}
    config = config_from_values(values, "endless.yaml", "pretrain")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = build_parts(config.model, torch.device("cpu"))
    made.model.eval()
    return Answerer(ServedModels(made, {"endless": Served(lambda: None, None)}))


@pytest.fixture(scope="module")
def worker():
    with Worker(size=32) as made:
        yield made


def settings(max_tokens=40, **changes):
    return ApiSettings(Decoding(max_new_tokens=max_tokens), **changes)


@contextmanager
def serving(answerer, worker, **changes):
    """Give the port of a real server in a thread of its own."""
    listener = bind("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn_config(build_app(answerer, worker, settings(**changes))))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
    thread.start()
    try:
        yield listener.getsockname()[1]
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
