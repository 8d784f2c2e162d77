"""`mmtune serve`: an API of OpenAI's form for a model, its adapters and its base."""

import argparse
import os
from typing import TYPE_CHECKING, Any

from mmtune.cli.arguments import above_0, at_least_1, port, require_packages
from mmtune.cli.model_arguments import (
    add_answering_model,
    add_context,
    add_drawing,
    check_answering_model,
    quantization_of,
)

if TYPE_CHECKING:
    from mmtune.serve.answering import Answerer
    from mmtune.serve.api import ApiSettings
    from mmtune.serve.served_models import ServedModels

KEY_VARIABLE = "MMTUNE_API_KEY"

EPILOG = f"""\
Answers POST /v1/chat/completions, GET /v1/models and GET /health. It is for a desk and a demo: one answer at a time.
docs/serve.md says what is served, and how to serve many users from an export. Exit codes: 0 after Ctrl-C or SIGTERM,
when what was asked is answered; 2. {KEY_VARIABLE} is a key as --api-key is, and shows in no list of processes.

example:
  mmtune serve runs/demo/finetune
  curl http://127.0.0.1:8000/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{{"messages": [{{"role": "user", "content": "What is an owl?"}}]}}'"""


def add(verbs: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        "serve",
        help="answer programs that speak OpenAI's API",
        description="Serve a model, its adapters and its base by an API of OpenAI's form.",
        epilog=EPILOG,
    )
    add_answering_model(parser)
    parser.add_argument(
        "--adapters", nargs="+", default=[], metavar="RUN", help="more runs on the same base models, each a model"
    )
    parser.add_argument(
        "--system", metavar="TEXT", help="for dialogues without a system message (the one that the run's sources gave)"
    )
    _add_server(parser)
    _add_limits(parser)
    group = parser.add_argument_group("how answers are chosen where a request does not say")
    add_drawing(group)
    add_context(group)
    parser.set_defaults(run=run)


def _add_server(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the server")
    group.add_argument("--host", default="127.0.0.1", help="another one than this machine needs --api-key (127.0.0.1)")
    group.add_argument("--port", type=port, default=8000, metavar="N", help="0 takes a free one (8000)")
    group.add_argument(
        "--api-key", action="append", default=[], metavar="KEY", help="which requests must bring; again for more people"
    )
    group.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        metavar="URL",
        help="a web page that may ask from a browser (none)",
    )
    group.add_argument(
        "--drain-seconds", type=above_0, default=30.0, metavar="S", help="for what was asked, when it ends (30)"
    )


def _add_limits(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("limits")
    group.add_argument(
        "--queue", type=at_least_1, default=32, metavar="N", help="requests that wait; more get 429 (32)"
    )
    group.add_argument("--max-tokens", type=at_least_1, default=1024, metavar="N", help="the longest answer (1024)")
    group.add_argument("--max-body-mb", type=above_0, default=32.0, metavar="MB", help="of a request (32)")
    group.add_argument("--max-pixels", type=at_least_1, default=50_000_000, metavar="N", help="of an image (50000000)")


def run(args: argparse.Namespace) -> int:
    """Serve."""
    require_packages("serve", ("fastapi", "uvicorn"), "pip install 'mmtune[serve]'")
    import logging

    from mmtune.serve.answering import Answerer
    from mmtune.serve.api import build_app
    from mmtune.serve.listening import bind, require_secret, url_of
    from mmtune.serve.server import serve_until_signal
    from mmtune.serve.worker import Worker

    logger = logging.getLogger(__name__)
    keys = tuple(key for key in (*args.api_key, os.environ.get(KEY_VARIABLE, "")) if key)
    _check(args, keys)
    require_secret(args.host, bool(keys), f"--api-key KEY, or set {KEY_VARIABLE}")
    with bind(args.host, args.port) as listener:
        logger.info("loading %s", args.folder)
        answerer = Answerer(_load(args), args.context)
        settings = _settings(args, keys, answerer)
        url, who = url_of(args.host, listener), "with an API key" if keys else "from this machine, without a key"
        logger.info("serving %s at %s/v1, %s. Ctrl-C ends.", ", ".join(answerer.models.names), url, who)
        with Worker(args.queue) as worker:
            serve_until_signal(build_app(answerer, worker, settings), worker, listener, args.drain_seconds)
    logger.info("ended")
    return 0


def _check(args: argparse.Namespace, keys: tuple[str, ...]) -> None:
    """Refuse what does not go together, before a model loads."""
    from mmtune.errors import ConfigError

    if any(not key.strip() or not key.isascii() for key in args.api_key):
        raise ConfigError("--api-key", "a key is a text of ASCII characters. Make one: openssl rand -hex 16.")
    for origin in args.allow_origin:
        if origin == "*" and not keys:
            message = "* lets any web page that is open on this machine ask. Name pages, or add --api-key KEY."
            raise ConfigError("--allow-origin", message)
        if origin != "*" and (origin.count("/") != 2 or "://" not in origin):
            message = f"an origin has no path, such as http://localhost:3000 (got {origin:.60})."
            raise ConfigError("--allow-origin", message)
    check_answering_model(args)


def _load(args: argparse.Namespace) -> "ServedModels":
    from mmtune.serve.served_models import load_served

    return load_served(
        args.folder,
        args.adapters,
        system=args.system,
        llm=args.llm,
        vision=args.vision,
        template=args.chat_template,
        quantization=quantization_of(args),
    )


def _settings(args: argparse.Namespace, keys: tuple[str, ...], answerer: "Answerer") -> "ApiSettings":
    from mmtune.chat.generate import Decoding
    from mmtune.serve.api import ApiSettings
    from mmtune.serve.gate import Gate
    from mmtune.serve.uploads import UploadLimits

    body = int(args.max_body_mb * 2**20)
    return ApiSettings(
        Decoding(args.max_tokens, args.temperature, args.top_p, args.top_k, args.repetition_penalty),
        answerer.message_limits(UploadLimits(body, args.max_pixels)),
        Gate(keys, args.host),
        body,
        origins=tuple(args.allow_origin),
    )
