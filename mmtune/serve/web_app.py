"""The page as an ASGI app: models behind it, the gate before it, Gradio in between without any of its services."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import gradio as gr
from fastapi import FastAPI

from mmtune.data.image_files import open_image
from mmtune.errors import ConfigError
from mmtune.evaluate.questions import read_questions, spread
from mmtune.serve.uploads import UploadLimits
from mmtune.serve.web import PageOptions, build_page, looks
from mmtune.serve.web_chat import Example
from mmtune.serve.web_files import keep_shown, private_folder
from mmtune.serve.web_gate import Gate
from mmtune.serve.web_login import Door
from mmtune.serve.web_models import Side
from mmtune.serve.web_talk import Talk
from mmtune.serve.worker import Worker

QUESTION_SUFFIXES = (".json", ".jsonl")
MOST_EXAMPLES = 8
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True)
class WebOptions:
    """How a page is served.

    Attributes:
        page: what it is made with.
        limits: of uploads.
        context: tokens of prompt and answer; None takes what the model was made for.
        password: that is asked for; None asks for none.
        is_local: whether this machine alone reaches it, by its own names.
    """

    page: PageOptions
    limits: UploadLimits
    context: int | None = None
    password: str | None = None
    is_local: bool = True


@contextmanager
def web_app(sides: Sequence[Side], worker: Worker, examples: Sequence[str], options: WebOptions) -> Iterator[Gate]:
    """Give the app; uploads are deleted at the end of the `with`.

    Args:
        sides: who answers.
        worker: in whose thread.
        examples: files: images, or questions as `mmtune chat --questions` reads them.
        options: how it is served.

    Raises:
        MMTuneError: an example cannot be read.
    """
    logging.getLogger("httpx").setLevel(logging.WARNING)
    with private_folder() as folder:

        def open_talk() -> Talk:
            return Talk(sides, worker, folder, options.limits, options.page.decoding, options.context)

        sees = sides[0].parts.transform is not None
        page = build_page(sides, open_talk, options.page, read_examples(examples, folder, sees=sees))
        app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        gr.mount_gradio_app(
            app, page, "/", server_name="127.0.0.1", footer_links=[], run_history=False, allowed_paths=[],
            show_error=False, max_file_size=options.limits.max_bytes, ssr_mode=False,
            enable_monitoring=False, pwa=False, mcp_server=False, **looks(),
        )  # fmt: skip
        door = None if options.password is None else Door(options.password)
        hosts = LOOPBACK_NAMES if options.is_local else frozenset()
        yield Gate(app, folder, options.limits.max_bytes, hosts, door, lambda: worker.is_draining)


def read_examples(paths: Sequence[str], folder: Path, *, sees: bool) -> list[Example]:
    """Return questions to begin with; their images are copied into the folder of uploads.

    Args:
        paths: images, or files of questions.
        folder: of uploads.
        sees: whether the model takes images; without, questions about images are left out.

    Raises:
        DataError: a file cannot be read.
        ConfigError: an image is for a model that cannot see.
    """
    found: list[tuple[str, tuple[str, ...]]] = []
    for path in paths:
        if Path(path).suffix.lower() in QUESTION_SUFFIXES:
            asked = [(each.question, each.images) for each in read_questions(path)]
            found += [each for each in asked if sees or not each[1]]
        elif sees:
            found.append(("", (path,)))
        else:
            raise ConfigError("--examples", f"{path}: this model was trained on text alone and cannot see.")
    return [
        Example(question, tuple(keep_shown(open_image(image, "--examples"), folder) for image in images))
        for question, images in spread(found, MOST_EXAMPLES)
    ]
