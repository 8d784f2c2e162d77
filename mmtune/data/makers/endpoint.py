"""One question to an OpenAI-compatible endpoint over HTTP, with the standard library. Retries are the caller's.

The API key goes into one header and nowhere else: not into `repr`, not into a message, not to another host.
"""

import http.client
import json
import socket
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import IO, Any
from urllib.parse import urlsplit

from mmtune.errors import ConfigError

MAX_ANSWER_BYTES = 16 << 20
MAX_ERROR_BYTES = 1 << 16
MAX_REASON_CHARS = 300
MAX_WAIT_S = 300.0
RETRIED_CODES = {408, 409, 425, 429}
REFUSALS = {
    401: "the endpoint refuses the API key (HTTP 401). Name its variable with --api-key-env.",
    403: "the endpoint refuses this API key (HTTP 403). Use a key that may ask this model.",
    404: "the endpoint has no such address or model (HTTP 404). Mend --base-url (it ends in /v1) or --model.",
}
"""What no later request could change."""


class EndpointError(Exception):
    """A request without a usable answer.

    Attributes:
        reason: one line, free of the key.
        is_retryable: whether the same request may succeed later.
        is_final: whether no other request would succeed either.
        wait_s: how long the endpoint asks to wait, in seconds.
    """

    def __init__(self, reason: str, *, is_retryable: bool = False, is_final: bool = False, wait_s: float = 0.0):
        super().__init__(reason)
        self.reason, self.is_retryable, self.is_final, self.wait_s = reason, is_retryable, is_final, wait_s


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Refuses redirects, which would carry the key to another host. urllib's own way to say so."""

    def redirect_request(
        self, req: Any, fp: IO[bytes], code: int, msg: str, headers: http.client.HTTPMessage, newurl: str
    ) -> None:
        return None


@dataclass(frozen=True)
class Endpoint:
    """Where to ask, and how.

    Attributes:
        base_url: such as `http://localhost:8000/v1`; `/chat/completions` is added.
        model: the name that the endpoint knows.
        api_key: sent as a bearer token; None sends none.
        timeout_s: how long the endpoint may stay silent, in seconds.
        options: further keys of the request, such as `temperature`.

    Raises:
        ConfigError: the address is none, or the key has characters that a header cannot hold.
    """

    base_url: str
    model: str
    api_key: str | None = field(default=None, repr=False)
    timeout_s: float = 120.0
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        parts = urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            shown = self.base_url.rpartition("@")[2]
            raise ConfigError("--base-url", f"is no web address (got '{shown}'). Such as http://localhost:8000/v1.")
        if "@" in parts.netloc or parts.query:
            raise ConfigError("--base-url", "holds a password or a query. Give the key with --api-key-env.")
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.isprintable() and self.api_key):
            raise ConfigError("--api-key-env", "the key is empty or has characters that no key has. Set it again.")

    def body(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the request as it is sent, but for the header."""
        return {"model": self.model, "messages": messages, **self.options}

    def ask(self, messages: list[dict[str, Any]]) -> str:
        """Send one request and return the text of the answer.

        Raises:
            EndpointError: there is none.
        """
        headers = {"Content-Type": "application/json", "User-Agent": "mmtune"}
        if self.api_key is not None:
            headers["Authorization"] = f"Bearer {self.api_key}"
        url = self.base_url.rstrip("/") + "/chat/completions"
        request = urllib.request.Request(url, json.dumps(self.body(messages)).encode(), headers)
        opener = urllib.request.build_opener(_NoRedirects)
        try:
            with opener.open(request, timeout=self.timeout_s) as response:
                content = response.read(MAX_ANSWER_BYTES + 1)
        except urllib.error.HTTPError as error:
            with error:
                raise self._http_error(error) from None
        except TimeoutError:
            raise EndpointError(f"no answer within {self.timeout_s:g} s", is_retryable=True) from None
        except urllib.error.URLError as error:
            if isinstance(error.reason, TimeoutError):
                raise EndpointError(f"no answer within {self.timeout_s:g} s", is_retryable=True) from None
            reason = self._clean(f"the endpoint cannot be reached: {error.reason}")
            nobody_there = isinstance(error.reason, (ConnectionRefusedError, socket.gaierror, ssl.SSLError))
            raise EndpointError(reason, is_retryable=True, is_final=nobody_there) from None
        except (OSError, http.client.HTTPException) as error:
            raise EndpointError(f"the connection broke: {type(error).__name__}", is_retryable=True) from None
        return self._text_of(content)

    def _http_error(self, error: urllib.error.HTTPError) -> EndpointError:
        if error.code in REFUSALS:
            return EndpointError(REFUSALS[error.code], is_final=True)
        if 300 <= error.code < 400:
            reason = f"the endpoint redirects (HTTP {error.code}), which is not followed. Give the final --base-url."
            return EndpointError(reason, is_final=True)
        try:
            said = error.read(MAX_ERROR_BYTES).decode("utf-8", "replace")
        except (OSError, http.client.HTTPException):
            said = ""
        wait = error.headers.get("Retry-After", "")
        wait_s = min(float(wait), MAX_WAIT_S) if wait.isascii() and wait.isdigit() else 0.0
        is_retryable = error.code >= 500 or error.code in RETRIED_CODES
        return EndpointError(self._clean(f"HTTP {error.code}: {said}"), is_retryable=is_retryable, wait_s=wait_s)

    def _text_of(self, content: bytes) -> str:
        """Return the text in a response of the chat completions API."""
        try:
            choice = json.loads(content)["choices"][0]
            text, finish_reason = choice["message"]["content"], choice.get("finish_reason")
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            raise EndpointError("the response is none of a chat completions API", is_retryable=True) from None
        if finish_reason == "length":
            raise EndpointError("the answer was cut off; give a larger --max-tokens", is_retryable=True)
        if not isinstance(text, str):
            raise EndpointError("the response has no text", is_retryable=True)
        return text

    def _clean(self, text: str) -> str:
        """Return a text on one line, without the key."""
        if self.api_key is not None:
            text = text.replace(self.api_key, "***")
        return " ".join(text.split())[:MAX_REASON_CHARS]
