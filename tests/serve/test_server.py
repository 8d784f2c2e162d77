"""A real server on a socket: the official client, clients that are slow, large or gone, and many at once."""

import json
import re
import socket
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import openai
import pytest
from data_uris import image_part, png, text_part, uri, user
from PIL import Image
from serve_workspace import Occupied, endless, serving, worker

import mmtune.serve.answering
import mmtune.serve.server
from mmtune.chat.generate import Decoding, generate_ids
from mmtune.chat.session import ChatSession
from mmtune.serve.gate import Gate
from mmtune.serve.worker import Worker

__all__ = ["endless", "worker"]

MANY = 2**14
"""Tokens of an answer that takes a minute, if nobody stops it."""
IMAGES = [Image.new("RGB", (40, 32), colour) for colour in ("red", "blue")]
HI = [user("Hi")]


@pytest.fixture(scope="module")
def port(endless, worker):
    with serving(endless, worker, max_tokens=MANY, body_seconds=0.5) as found:
        yield found


@pytest.fixture
def client(port):
    return client_at(port)


def client_at(port, key="none", **options):
    return openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=key, max_retries=0, **options)


def ask(client, content="Hi", **options):
    return client.chat.completions.create(
        **{"model": "endless", "max_tokens": 20, "messages": [user(content)]} | options
    )


def chat(endless, question, images=()):
    """What chat says to a question, as it streams it."""
    session, pieces = ChatSession(endless.models.parts, Decoding(20)), []
    session.ask(question, images, pieces.append)
    return "".join(pieces)


def test_the_official_client_asks_about_images_and_streams(client, endless):
    assert [model.id for model in client.models.list()] == ["endless"]
    assert client.models.retrieve("endless").object == "model"
    shown = [image_part(uri(png(colour))) for colour in ("red", "blue")]
    found = [ask(client, [*some, text_part("What?")]) for some in (shown[:1], shown[1:], shown)]
    expected = [chat(endless, "What?", some) for some in (IMAGES[:1], IMAGES[1:], IMAGES)]
    assert [each.choices[0].message.content for each in found] == expected
    assert len({*expected, chat(endless, "What?")}) > 1
    assert found[2].usage.prompt_tokens - found[0].usage.prompt_tokens == endless.models.parts.num_image_tokens + 1
    assert (found[0].choices[0].finish_reason, found[0].usage.completion_tokens) == ("length", 20)
    *chunks, last = ask(client, [shown[0], text_part("What?")], stream=True, stream_options={"include_usage": True})
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == expected[0]
    assert last.usage == found[0].usage


@pytest.mark.parametrize(
    ("options", "error", "code"),
    [
        ({"model": "other"}, openai.NotFoundError, "model_not_found"),
        ({"n": 2}, openai.BadRequestError, "unsupported_parameter"),
        ({"messages": [user("a" * 40_000)]}, openai.BadRequestError, "context_length_exceeded"),
        ({"messages": [user([image_part("https://example.org/cat.png")])]}, openai.BadRequestError, None),
    ],
)
def test_the_official_client_raises_its_own_errors(client, options, error, code):
    for stream in (False, True):
        with pytest.raises(error) as caught:
            ask(client, **options, stream=stream)
        assert caught.value.code == code
        assert caught.value.body["message"]


def test_keys_and_limits_raise_too(endless):
    with Worker(size=1) as worker, serving(endless, worker, gate=Gate(("right",))) as port, Occupied(worker):
        with pytest.raises(openai.AuthenticationError):
            ask(client_at(port, "wrong"))
        waiting = worker.submit("0@127.0.0.1", lambda job: None)
        with pytest.raises(openai.RateLimitError):
            ask(client_at(port, "right"))
        waiting.cancel()


@pytest.fixture
def counted(monkeypatch):
    """The number of tokens that were made, and an event for the first one."""
    made, begun = Counter(), threading.Event()

    def counting(parts, prompts, embeds, decoding, take):
        def counting_take(token):
            made["tokens"] += 1
            begun.set()
            take(token)

        try:
            return generate_ids(parts, prompts, embeds, decoding, counting_take)
        finally:
            made["ended"] += 1

    monkeypatch.setattr(mmtune.serve.answering, "generate_ids", counting)
    return made, begun


@pytest.mark.parametrize("is_stream", [True, False])
def test_an_answer_ends_where_its_client_goes_away(port, client, counted, is_stream):
    made, begun = counted
    if is_stream:
        with ask(client, max_tokens=MANY, stream=True) as stream:
            for _ in zip(range(5), stream, strict=False):
                pass
    else:
        body = json.dumps({"messages": HI, "max_tokens": MANY}).encode()
        with request(port, body):
            assert begun.wait(20)
    assert ask(client).usage.completion_tokens == 20  # it had to wait for the end of the other
    assert made["ended"] == 2
    assert made["tokens"] < MANY


def test_a_client_that_goes_away_while_it_waits_leaves_the_queue(port, worker):
    with Occupied(worker):
        for is_stream in (True, False):
            with request(port, json.dumps({"messages": HI, "stream": is_stream}).encode()):
                wait_for(lambda: worker.num_waiting == 1)
            wait_for(lambda: worker.num_waiting == 0)


def request(port, body, length=None, path="/v1/chat/completions"):
    """Return a connection that has sent a request, or a part of it."""
    connection = socket.create_connection(("127.0.0.1", port), 20)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    connection.sendall(f"{head}Content-Length: {len(body) if length is None else length}\r\n\r\n".encode() + body)
    return connection


def wait_for(condition):
    for _ in range(2000):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it did not come to be")


def whole_reply(connection):
    """The reply with its body, which may come in pieces."""
    reply = b""
    while True:
        head, end, body = reply.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        if end and length and len(body) >= int(length[1]):
            return reply.decode()
        more = connection.recv(4096)
        assert more, reply
        reply += more


def test_a_slow_body_is_refused(port):
    with request(port, b'{"messages": ', length=1000) as connection:
        reply = whole_reply(connection)
    assert reply.startswith("HTTP/1.1 408 ")
    assert "body: it did not come within 0.5 s. Send it faster, or a smaller one." in reply


def test_a_connection_without_a_request_ends(endless, worker, monkeypatch):
    monkeypatch.setattr(mmtune.serve.server, "HEAD_SECONDS", 0.1)
    with serving(endless, worker) as port:
        for head in (b"", b"POST /v1/chat/completions HTTP/1.1\r\nHost: loc"):
            with socket.create_connection(("127.0.0.1", port), 20) as connection:
                connection.sendall(head)
                with suppress(ConnectionResetError):
                    assert connection.recv(4096) == b""
        assert ask(client_at(port)).usage.completion_tokens == 20


def test_a_reader_that_reads_nothing_holds_nobody_up(port, client):
    body = json.dumps({"messages": HI, "stream": True, "max_tokens": 500}).encode()
    with request(port, body), request(port, body):
        assert ask(client).usage.completion_tokens == 20


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_of_100_mb_is_refused_and_not_held(port, is_chunked):
    connection = socket.create_connection(("127.0.0.1", port), 20)
    length = "Transfer-Encoding: chunked" if is_chunked else f"Content-Length: {100 * 2**20}"
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{length}\r\n\r\n"
    )
    piece = b"x" * 2**20
    with connection:
        connection.sendall(head.encode())
        for _ in range(100):
            connection.sendall(b"100000\r\n" + piece + b"\r\n" if is_chunked else piece)
        reply = whole_reply(connection)
    assert reply.startswith("HTTP/1.1 413 ")
    assert "Send smaller images." in reply


def drawn(client, number):
    """A request of its own, and its answer: text and image, question and seed differ."""
    shown = [image_part(uri(png(("red", "blue")[number % 2])))] if number % 3 else []
    options = {"seed": number, "temperature": 1.5, "max_tokens": 8}
    if number % 4:
        return ask(client, [text_part(f"Number {number}"), *shown], **options).choices[0].message.content
    stream = ask(client, [text_part(f"Number {number}"), *shown], stream=True, **options)
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream)


def load(endless, num_requests, size, num_keys):
    """Return what each of many requests at once came to: its answer, or 429."""
    keys = tuple(f"key-{number}" for number in range(num_keys))
    with Worker(size) as worker, serving(endless, worker, gate=Gate(keys)) as port:
        clients = [client_at(port, key, timeout=120) for key in keys]

        def one(number):
            try:
                return drawn(clients[number % num_keys], number)
            except openai.RateLimitError:
                return 429

        with ThreadPoolExecutor(num_requests) as pool:
            found = list(pool.map(one, range(num_requests)))
        assert worker.num_waiting == 0
        return found, [drawn(clients[0], number) for number in range(num_requests)]


def test_40_at_once_are_answered_as_alone_or_told_to_wait(endless):
    under_load, alone = load(endless, 40, size=16, num_keys=4)
    answered = [number for number, found in enumerate(under_load) if found != 429]
    assert [under_load[number] for number in answered] == [alone[number] for number in answered]
    assert len(set(alone)) > 35
    assert 17 <= len(answered) <= 40


@pytest.mark.slow
def test_200_at_once_are_all_answered_where_the_queue_holds_them(endless):
    under_load, alone = load(endless, 200, size=200, num_keys=4)
    assert under_load == alone
