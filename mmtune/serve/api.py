"""The API: `/v1/chat/completions`, `/v1/models` and `/health`. There is no other route, and no file is ever served."""

import time
from dataclasses import dataclass, field
from functools import partial

from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request

from mmtune.chat.generate import Decoding
from mmtune.errors import MMTuneError
from mmtune.serve.answering import Answerer
from mmtune.serve.bodies import Bodies
from mmtune.serve.chat_messages import MessageLimits
from mmtune.serve.chat_request import ChatRequest, read_request
from mmtune.serve.gate import Gate, check_type
from mmtune.serve.refusals import Refused, as_refusal, error_object
from mmtune.serve.replies import model_list, model_object
from mmtune.serve.request_log import RequestLog, note
from mmtune.serve.sending import reply_with
from mmtune.serve.worker import Busy, Worker

GONE = 499
"""What the log says of a client that went away, as nginx does."""


@dataclass(frozen=True)
class ApiSettings:
    """What the API allows.

    Attributes:
        decoding: what is taken where a request leaves it out; `max_new_tokens` is also the longest answer.
        limits: of the messages.
        gate: who may ask.
        max_body_bytes: of a request.
        body_seconds: in which a body must have come.
        origins: web pages that may ask, such as `http://localhost:3000`.
    """

    decoding: Decoding = field(default_factory=lambda: Decoding(max_new_tokens=1024))
    limits: MessageLimits = field(default_factory=MessageLimits)
    gate: Gate = field(default_factory=Gate)
    max_body_bytes: int = 32 * 2**20
    body_seconds: float = 30.0
    origins: tuple[str, ...] = ()


class Api:
    """What the routes do.

    Args:
        answerer: answers requests.
        worker: in whose thread.
        settings: what is allowed.
    """

    def __init__(self, answerer: Answerer, worker: Worker, settings: ApiSettings):
        self.answerer, self.worker, self.settings = answerer, worker, settings
        self.bodies = Bodies(settings.max_body_bytes, settings.body_seconds)
        self.created = int(time.time())

    async def health(self) -> JSONResponse:
        """Say whether requests are taken; without a key, for what watches the server."""
        is_ready = not self.worker.is_draining
        values = {"status": "ok" if is_ready else "draining", "waiting": self.worker.num_waiting}
        return JSONResponse(values, 200 if is_ready else 503)

    async def models(self, request: Request) -> JSONResponse:
        """List the models."""
        self.settings.gate.client_of(request)
        return JSONResponse(model_list(self.answerer.models.names, self.created))

    async def model(self, request: Request) -> JSONResponse:
        """Tell of one model."""
        self.settings.gate.client_of(request)
        name = request.path_params["name"]
        self.answerer.models[name]
        return JSONResponse(model_object(name, self.created))

    async def complete(self, request: Request) -> Response:
        """Answer a dialogue."""
        client = self.settings.gate.client_of(request)
        check_type(request)
        self.worker.check_room(client)
        try:
            async with self.bodies.held_by(request) as body:
                asked = self._read(body)
                body.clear()
                note(request, asked.model)
                job = self.worker.submit(client, partial(self.answerer.answer, asked))
                return await reply_with(request, asked, job)
        except ClientDisconnect:
            return Response(status_code=GONE)

    def _read(self, body: bytearray) -> ChatRequest:
        models, settings = self.answerer.models, self.settings
        asked = read_request(body, models.names[0], settings.decoding, settings.limits)
        models[asked.model]
        return asked


def build_app(answerer: Answerer, worker: Worker, settings: ApiSettings | None = None) -> FastAPI:
    """Return the API as an ASGI application.

    Args:
        answerer: answers requests.
        worker: in whose thread; its owner drains and closes it.
        settings: what is allowed.
    """
    settings = settings or ApiSettings()
    api = Api(answerer, worker, settings)
    app = FastAPI(title="mmtune", docs_url=None, redoc_url=None, openapi_url=None)  # their pages load from elsewhere
    app.add_api_route("/health", api.health, methods=["GET"])
    app.add_api_route("/v1/models", api.models, methods=["GET"])
    app.add_api_route("/v1/models/{name:path}", api.model, methods=["GET"])
    app.add_api_route("/v1/chat/completions", api.complete, methods=["POST"], response_model=None)
    app.add_exception_handler(MMTuneError, _refuse)
    app.add_exception_handler(HTTPException, _refuse_route)
    app.add_exception_handler(Exception, _fail)
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],  # the official client sends headers of its own
            expose_headers=["Retry-After"],
        )
    app.add_middleware(RequestLog)
    return app


async def _refuse(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, MMTuneError)
    refused = as_refusal(error)
    headers = {}
    if refused.status in (429, 503):
        headers["Retry-After"] = str(error.seconds if isinstance(error, Busy) else 1)
    if refused.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(error_object(refused), refused.status, headers)


async def _refuse_route(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    mend = "There are: POST /v1/chat/completions, GET /v1/models, GET /health."
    refused = Refused(error.status_code, "path", f"{request.method} {request.url.path:.80} is not served. {mend}")
    return JSONResponse(error_object(refused), error.status_code, error.headers)


async def _fail(request: Request, error: Exception) -> JSONResponse:
    refused = Refused(500, "server", "it failed. Its log says why.", "internal_error")
    return JSONResponse(error_object(refused), 500)
