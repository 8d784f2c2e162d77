"""Bodies are read up to their limit and no further, and all of them together have one."""

import asyncio

import pytest
from starlette.requests import ClientDisconnect, Request

from mmtune.serve.bodies import TOGETHER, Bodies
from mmtune.serve.refusals import Refused

CHUNK = b"x" * 1000


class Sender:
    """A client that sends chunks, for ever unless a number of them is given."""

    def __init__(self, num_chunks=None, headers=(), is_slow=False, goes_away=False):
        self.num_chunks, self.is_slow, self.goes_away = num_chunks, is_slow, goes_away
        self.num_sent = 0
        self.request = Request({"type": "http", "headers": list(headers)}, self.receive)

    async def receive(self):
        if self.is_slow and self.num_sent:
            await asyncio.sleep(60)
        if self.goes_away and self.num_sent:
            return {"type": "http.disconnect"}
        self.num_sent += 1
        return {"type": "http.request", "body": CHUNK, "more_body": self.num_sent != self.num_chunks}


async def read(bodies, sender):
    async with bodies.held_by(sender.request) as body:
        return bytes(body), bodies.held


def refused(bodies, sender):
    with pytest.raises(Refused) as caught:
        asyncio.run(read(bodies, sender))
    assert bodies.held == 0
    return caught.value.status, caught.value.message


def test_a_body_within_the_limit_is_read_and_counted_while_it_is_held():
    bodies = Bodies(10_000)
    assert asyncio.run(read(bodies, Sender(10))) == (CHUNK * 10, 10_000)
    assert bodies.held == 0


def test_a_body_without_end_is_read_up_to_the_limit():
    sender = Sender()
    status, message = refused(Bodies(10_000), sender)
    assert (status, message) == (413, "it is too large (more than 10,000 bytes). Send smaller images.")
    assert sender.num_sent == 11


@pytest.mark.parametrize("length", [b"10001", b"9" * 5000])
def test_a_body_that_says_it_is_too_large_is_not_read(length):
    sender = Sender(headers=[(b"content-length", length)])
    assert refused(Bodies(10_000), sender)[0] == 413
    assert sender.num_sent == 0


@pytest.mark.parametrize("length", [b"-1", b"5", b"many", "²".encode("latin-1")])
def test_a_length_that_is_wrong_changes_nothing(length):
    assert refused(Bodies(10_000), Sender(headers=[(b"content-length", length)]))[0] == 413


def test_a_slow_body_is_given_up():
    status, message = refused(Bodies(10_000, seconds=0.05), Sender(is_slow=True))
    assert (status, message) == (408, "it did not come within 0.05 s. Send it faster, or a smaller one.")


def test_what_is_done_with_a_body_may_take_longer_than_it_took_to_come():
    async def read_and_work():
        async with Bodies(10_000, seconds=0.05).held_by(Sender(1).request) as body:
            await asyncio.sleep(0.1)
            return len(body)

    assert asyncio.run(read_and_work()) == 1000


def test_an_error_of_the_work_stays_what_it_is():
    async def read_and_fail():
        async with Bodies(10_000).held_by(Sender(1).request):
            raise TimeoutError("of the work")

    with pytest.raises(TimeoutError, match="of the work"):
        asyncio.run(read_and_fail())


def test_a_client_that_goes_away_holds_nothing():
    bodies = Bodies(10_000)
    with pytest.raises(ClientDisconnect):
        asyncio.run(read(bodies, Sender(goes_away=True)))
    assert bodies.held == 0


def test_all_bodies_together_are_limited():
    bodies = Bodies(10_000)

    async def hold_many():
        async def hold(left):
            if left:
                async with bodies.held_by(Sender(10).request):
                    await hold(left - 1)

        await hold(TOGETHER)
        await hold(TOGETHER + 1)

    with pytest.raises(Refused, match="other requests hold as much as may be held") as caught:
        asyncio.run(hold_many())
    assert caught.value.status == 429
    assert bodies.held == 0
