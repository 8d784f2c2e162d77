"""The password of the page: a form that asks for it, and a cookie of a browser that knew it."""

import asyncio
import hmac
import secrets
from html import escape
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from mmtune.serve.web_http import Body, Receive, Refused, Send, answer
from mmtune.serve.web_text import preferred_language, text

COOKIE = "mmtune_web"
LOGIN = "/login"
MAX_FORM_BYTES = 4096
SECONDS_AFTER_WRONG = 1.0
"""What a wrong password costs everybody who guesses: guesses wait for each other."""

PAGE = """<!doctype html>
<html lang="{language}"><head><meta charset="utf-8"><title>mmtune</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>
body {{ font: 16px system-ui, sans-serif; display: grid; place-items: center; min-height: 90vh; margin: 0 16px;
  color-scheme: light dark; }}
form {{ display: grid; gap: 12px; width: min(100%, 320px); }}
input, button {{ font: inherit; padding: 10px 12px; border-radius: 8px; border: 1px solid #94a3b8; }}
button {{ background: #2563eb; color: white; border: 0; cursor: pointer; }}
p {{ color: #dc2626; margin: 0; }}
</style></head><body><form method="post" action="{action}"><h1>mmtune</h1>
<label for="password">{label}</label>
<input id="password" name="password" type="password" autocomplete="current-password" autofocus required>
{problem}<button>{enter}</button></form></body></html>"""


class Door:
    """Lets those in who know the password.

    Args:
        password: that is asked for.
    """

    def __init__(self, password: str):
        self._password = password.encode()
        self._known: set[str] = set()
        self._guessing = asyncio.Lock()

    async def answers(self, path: str, method: str, headers: dict[str, str], receive: Receive, send: Send) -> bool:
        """Answer a request of a browser that is not in yet, and return whether that was done.

        Raises:
            Refused: it asked for something without having come in.
        """
        is_in = self._is_in(headers.get("cookie", ""))
        language = preferred_language(headers.get("accept-language", ""))
        if path == LOGIN and method == "POST":
            await self._enter(headers, language, receive, send)
        elif path == LOGIN:
            await answer(send, 200, page(language), "text/html")
        elif is_in:
            return False
        elif path == "/" and method == "GET":
            await answer(send, 303, "", more=((b"location", LOGIN.encode()),))
        else:
            raise Refused(401, "The password is asked for on the page.")
        return True

    async def _enter(self, headers: dict[str, str], language: str, receive: Receive, send: Send) -> None:
        body = Body(receive, MAX_FORM_BYTES)
        body.check_length(headers)
        form = parse_qs((await body.whole()).decode("utf-8", "replace"))
        given = form.get("password", [""])[0].encode()
        async with self._guessing:  # or of many guesses at once the right one would be answered first
            is_right = hmac.compare_digest(given, self._password)
            if not is_right:
                await asyncio.sleep(SECONDS_AFTER_WRONG)
        if not is_right:
            await answer(send, 401, page(language, is_wrong=True), "text/html")
            return
        token = secrets.token_urlsafe(32)
        self._known.add(token)
        cookie = f"{COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict"
        await answer(send, 303, "", more=((b"location", b"/"), (b"set-cookie", cookie.encode())))

    def _is_in(self, cookies: str) -> bool:
        try:
            found = SimpleCookie(cookies).get(COOKIE)
        except CookieError:
            return False
        return found is not None and found.value in self._known


def page(language: str, *, is_wrong: bool = False) -> str:
    """Return the form in a language of the page."""
    problem = f'<p role="alert">{escape(text("wrong_password", language))}</p>' if is_wrong else ""
    label, enter = text("password", language), text("enter", language)
    return PAGE.format(language=language, action=LOGIN, label=label, problem=problem, enter=enter)
