"""The door of the page: guesses that come at once are answered one after the other, the right one too."""

import asyncio
from urllib.parse import urlencode

from mmtune.serve.web_login import LOGIN, Door


def test_a_right_guess_among_many_is_not_answered_before_the_wrong_ones(monkeypatch):
    monkeypatch.setattr("mmtune.serve.web_login.SECONDS_AFTER_WRONG", 0.01)
    answered = []

    async def guess(door, password):
        body = {"type": "http.request", "body": urlencode({"password": password}).encode(), "more_body": False}

        async def receive():
            return body

        async def send(message):
            if message["type"] == "http.response.start":
                answered.append((password, message["status"]))

        await door.answers(LOGIN, "POST", {}, receive, send)

    async def all_at_once():
        door = Door("right")
        await asyncio.gather(*(guess(door, word) for word in ("a", "b", "c", "right")))

    asyncio.run(all_at_once())
    assert answered == [("a", 401), ("b", 401), ("c", 401), ("right", 303)]
