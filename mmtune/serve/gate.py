"""Who may ask: keys, the names that this server goes by, and the type of the body. Looked at before a body is read."""

import hmac
import ipaddress
from dataclasses import dataclass

from starlette.requests import Request

from mmtune.serve.listening import host_name
from mmtune.serve.refusals import Refused

JSON_TYPE = "application/json"


@dataclass(frozen=True)
class Gate:
    """Lets requests in.

    Attributes:
        keys: of which a request must bring one; none: anybody who reaches the server may ask.
        host: that the server listens on, as it was named.
    """

    keys: tuple[str, ...] = ()
    host: str = "127.0.0.1"

    def client_of(self, request: Request) -> str:
        """Return who asks, for the turns that clients take: a key at an address.

        Raises:
            Refused: the key is missing or wrong, or a web page asks in a stranger's name.
        """
        address = request.client.host if request.client is not None else ""
        if not self.keys:
            self._check_name(request)
            return f"@{address}"
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        same = [hmac.compare_digest(given.strip().encode(), key.encode()) for key in self.keys]
        if scheme.lower() != "bearer" or not any(same):
            what = "is wrong" if given else "is missing"
            raise Refused(
                401,
                "API key",
                f"it {what}. Send the header: Authorization: Bearer KEY.",
                "invalid_api_key",
            )
        return f"{same.index(True)}@{address}"

    def _check_name(self, request: Request) -> None:
        """Refuse foreign names: by one of its own that points here, a web page could read answers (DNS rebinding)."""
        name = host_name(request.headers.get("host", "localhost"))
        if name in ("localhost", self.host) or _is_address(name):
            return
        mend = f"Ask http://{self.host}, or start the server with --api-key."
        raise Refused(403, "Host", f"this server is not called {name:.60}. {mend}", "host_not_allowed")


def check_type(request: Request) -> None:
    """Hold that a body says it is JSON: that of a form or a text, any web page may send anywhere.

    Raises:
        Refused: it says something else.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != JSON_TYPE:
        message = f"must be {JSON_TYPE} (got {kind[:40] or 'none'}). Send the header: Content-Type: {JSON_TYPE}."
        raise Refused(415, "Content-Type", message)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
