"""`mmtune web`: a page to talk to a model, and to watch training runs."""

import argparse
import os
from typing import TYPE_CHECKING, Any

from mmtune.cli.arguments import above_0, at_least_0, at_least_1, port, require_packages
from mmtune.cli.model_arguments import (
    add_answering_model,
    add_context,
    add_drawing,
    check_answering_model,
    quantization_of,
)

if TYPE_CHECKING:
    from mmtune.serve.web_app import WebOptions
    from mmtune.serve.web_models import Side

PASSWORD_VARIABLE = "MMTUNE_WEB_PASSWORD"
DRAIN_SECONDS = 1.0
"""What an answer under way still has when the page ends."""

EPILOG = f"""\
The page is in English and Chinese, and fits a telephone. It is for this machine alone unless --host names another
address, which needs a password; {PASSWORD_VARIABLE} is one as --password is, and shows in no list of processes.
Nothing is fetched from a network. Ctrl-C ends it, with exit code 0. docs/web.md says the rest.

example:
  mmtune web runs/demo/finetune
  mmtune web runs/demo/finetune --before runs/demo/pretrain --examples runs/demo/data/heldout_questions.json"""


def add(verbs: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        "web",
        help="open a page to talk to a model, and to watch training runs",
        description="Serve a page to talk to a model, before and after training side by side, and to watch runs.",
        epilog=EPILOG,
    )
    add_answering_model(parser)
    parser.add_argument(
        "--before", metavar="RUN0",
        help="what it is compared with: a run or a model (of a run with an adapter: the model below it)",
    )  # fmt: skip
    parser.add_argument("--runs", metavar="FOLDER", help="where training runs are (where RUN is; else runs)")
    parser.add_argument(
        "--examples", action="append", default=[], metavar="FILE",
        help="an image, or a file of questions, to begin with; give it again for more",
    )  # fmt: skip
    parser.add_argument("--system", metavar="TEXT", help="a system message (the one that the run's sources gave)")
    _add_server(parser)
    group = parser.add_argument_group("how answers are chosen, until the page says otherwise")
    group.add_argument("--max-new-tokens", type=at_least_1, default=256, metavar="N", help="the longest answer (256)")
    add_drawing(group)
    group.add_argument("--seed", type=at_least_0, default=0, metavar="N", help="of draws (0)")
    add_context(group)
    parser.set_defaults(run=run, adapters=[])


def _add_server(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the server")
    group.add_argument("--host", default="127.0.0.1", help="another one than this machine needs a password (127.0.0.1)")
    group.add_argument("--port", type=port, default=7860, metavar="N", help="0 takes a free one (7860)")
    group.add_argument("--password", metavar="TEXT", help="that the page asks for")
    group.add_argument("--queue", type=at_least_1, default=32, metavar="N", help="questions that wait at most (32)")
    group.add_argument("--max-upload-mb", type=above_0, default=20.0, metavar="MB", help="of an image file (20)")
    group.add_argument("--max-pixels", type=at_least_1, default=50_000_000, metavar="N", help="of an image (50000000)")


def run(args: argparse.Namespace) -> int:
    """Serve the page."""
    require_packages("web", ("gradio",), 'pip install "mmtune[web]"')
    import logging

    from mmtune.serve.listening import bind, require_secret, url_of
    from mmtune.serve.server import serve_until_signal
    from mmtune.serve.web_app import web_app
    from mmtune.serve.worker import Worker

    logger = logging.getLogger(__name__)
    password = args.password or os.environ.get(PASSWORD_VARIABLE) or None
    check_answering_model(args)
    require_secret(args.host, password is not None, f"--password TEXT, or set {PASSWORD_VARIABLE}")
    with bind(args.host, args.port) as listener:
        logger.info("loading %s", args.folder)
        sides = _sides(args)
        with Worker(args.queue) as worker, web_app(sides, worker, args.examples, _options(args, password)) as app:
            who = "with a password" if password else "from this machine"
            logger.info("the page is at %s, %s. Ctrl-C ends.", url_of(args.host, listener), who)
            serve_until_signal(app, worker, listener, DRAIN_SECONDS)
    logger.info("ended")
    return 0


def _sides(args: argparse.Namespace) -> "list[Side]":
    """Load the models."""
    from dataclasses import replace

    from mmtune.serve.web_models import Choice, open_sides

    choice = Choice(args.llm, args.vision, args.chat_template, quantization_of(args))
    sides = open_sides(args.folder, args.before, choice)
    return sides if args.system is None else [replace(side, system=args.system or None) for side in sides]


def _options(args: argparse.Namespace, password: str | None) -> "WebOptions":
    from pathlib import Path

    from mmtune.build_folder import is_model
    from mmtune.chat.generate import Decoding
    from mmtune.serve.listening import is_loopback
    from mmtune.serve.uploads import UploadLimits
    from mmtune.serve.web import PageOptions
    from mmtune.serve.web_app import WebOptions

    runs = args.runs or ("runs" if is_model(args.folder) else Path(args.folder).resolve().parent)
    decoding = Decoding(args.max_new_tokens, args.temperature, args.top_p, args.top_k, args.repetition_penalty)
    page = PageOptions(decoding, args.seed, Path(runs), compares=args.before is not None)
    limits = UploadLimits(int(args.max_upload_mb * 2**20), args.max_pixels)
    return WebOptions(page, limits, args.context, password, is_loopback(args.host))
