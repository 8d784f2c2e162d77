"""Why a request is not answered, as an HTTP status and OpenAI's error object. Nothing of the web framework."""

from typing import Any

from mmtune.errors import MMTuneError
from mmtune.serve.worker import Busy, Draining

TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
"""Status -> OpenAI's type of error; other ones from 400 are `invalid_request_error`, from 500 `server_error`."""


class Refused(MMTuneError):
    """A request that is not answered.

    Args:
        status: of HTTP.
        param: the field that is wrong, or another place.
        message: what is wrong, and the mend.
        code: a word for programs, in OpenAI's spelling.
    """

    def __init__(self, status: int, param: str, message: str, code: str | None = None):
        self.status, self.code = status, code
        super().__init__(param.encode("utf-8", "backslashreplace").decode(), message)  # it may be half a character


def as_refusal(error: MMTuneError) -> Refused:
    """Return any mistake of a client, or a limit of the server, as a refusal."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, Busy):
        return Refused(429, error.place, error.message, "rate_limit_exceeded")
    if isinstance(error, Draining):
        return Refused(503, error.place, error.message, "server_draining")
    return Refused(400, error.place, error.message)


def error_object(refused: Refused) -> dict[str, Any]:
    """Return the body of the reply."""
    kind = "server_error" if refused.status >= 500 else TYPES.get(refused.status, "invalid_request_error")
    return {"error": {"message": str(refused), "type": kind, "param": refused.place, "code": refused.code}}
