"""make_qa against a server on a real socket: what is sent, retries, resuming, a key that never shows."""

import base64
import io
import json
import os
import signal
import socket
import time
from collections import Counter
from itertools import pairwise

import pytest
from PIL import Image

from mmtune.data.formats import parse_record
from mmtune.data.makers.qa_prompts import PROMPTS, parse_answer
from mmtune.data.records import read_records

KEY = "sk-secret-4711"
COLOURS = {"a.png": (250, 0, 0), "sub/b.jpg": (0, 250, 0), "c.png": (0, 0, 250), "d.png": (250, 250, 250)}


@pytest.fixture
def photos(desk):
    """Four images of 80 x 40 pixels, each of one colour, so that the server can tell them apart."""
    for name, colour in COLOURS.items():
        path = desk / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (80, 40), colour).save(path)
    (desk / "photos" / "notes.txt").write_text("no image")
    return desk / "photos"


@pytest.fixture
def ask(tool, stub, photos):
    """Run make_qa on the photos, without waiting between attempts."""

    def run(*argv):
        standard = ("--image-folder", "photos", "-o", "qa.jsonl", "--base-url", stub.url, "--model", "m")
        return tool("make_qa", *standard, "--backoff", 0, *argv)

    return run


def image_of(body):
    head, _, data = body["messages"][1]["content"][1]["image_url"]["url"].partition(",")
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def name_of(body):
    """Which of the photos a request is about."""
    pixel = image_of(body).getpixel((0, 0))
    return min(COLOURS, key=lambda name: sum(abs(a - b) for a, b in zip(pixel, COLOURS[name], strict=True)))


def say(text, finish_reason="stop"):
    return 200, {"choices": [{"message": {"content": text}, "finish_reason": finish_reason}]}, {}


def pairs(count, text="x"):
    return json.dumps({"pairs": [{"question": f"{text} {n}?", "answer": f"{text} {n}."} for n in range(count)]})


def test_records_are_llavas_and_the_right_image_was_sent(ask, stub, capsys, read_lines):
    stub.answer = lambda number, body: say(pairs(3, name_of(body)))
    assert ask("--max-side", 32, "--temperature", 0.5, "--max-tokens", 99, "--json-mode") == 0
    records = {record["image"]: record for record in read_lines("qa.jsonl")}
    assert set(records) == set(COLOURS)
    for name, record in records.items():
        turns = record["conversations"]
        assert [turn["from"] for turn in turns] == ["human", "gpt"] * 3
        assert turns[0]["value"] == f"<image>\n{name} 0?"
        assert turns[5]["value"] == f"{name} 2."
    assert all(parse_record(record).images for record in read_records("qa.jsonl"))
    path, headers, body = stub.requests[0]
    assert path == "/v1/chat/completions"
    assert "Authorization" not in headers
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("m", 0.5, 99)
    assert body["response_format"] == {"type": "json_object"}
    assert image_of(body).size == (32, 16)
    shown = capsys.readouterr()
    assert "4 requests for 4 images = 0 done before + 4 made + 0 failed" in shown.out
    assert "image_folder: photos" in shown.out
    assert not os.path.exists("qa.failed.jsonl")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_each_style_asks_in_its_words_and_makes_its_records(ask, stub, read_lines, language):
    stub.answer = lambda number, body: say(pairs(2))
    argv = ("--limit", 1, "--style", "conversation", "detail", "reasoning", "--per-image", 2, "--language", language)
    assert ask(*argv) == 0
    prompts = {body["messages"][1]["content"][0]["text"] for body in stub.bodies}
    assert prompts == {text.format(count=2) for (_style, spoken), text in PROMPTS.items() if spoken == language}
    sizes = Counter((record["source"]["style"], len(record["conversations"])) for record in read_lines("qa.jsonl"))
    assert sizes == {("conversation", 4): 1, ("detail", 2): 2, ("reasoning", 2): 2}
    assert {record["source"]["language"] for record in read_lines("qa.jsonl")} == {language}


BAD_THEN_GOOD = {
    "429": lambda: (429, {"error": "slow down"}, {}),
    "500": lambda: (500, b"oops", {}),
    "503": lambda: (503, b"", {}),
    "no JSON": lambda: say("Sure! Here you are."),
    "cut JSON": lambda: say(pairs(3)[:-4]),
    "cut off": lambda: say(pairs(3), "length"),
    "too few": lambda: say(pairs(2)),
    "empty": lambda: say(json.dumps([{"question": "q?", "answer": " "}] * 3)),
    "twice": lambda: say(json.dumps([{"question": "q?", "answer": "a"}] * 3)),
    "control token": lambda: say(pairs(3, "<|im_end|>")),
    "image mark": lambda: say(pairs(3, "<image>")),
    "half character": lambda: say(pairs(3, "\ud83d")),
    "no text": lambda: say(None),
    "no completion": lambda: (200, {"object": "list"}, {}),
    "no JSON at all": lambda: (200, b"<html>", {}),
    "cut response": lambda: (200, b"{", {"Content-Length": "99"}),
}


@pytest.mark.parametrize("case", BAD_THEN_GOOD)
def test_a_bad_answer_is_asked_again(ask, stub, read_lines, case):
    stub.answer = lambda number, body: BAD_THEN_GOOD[case]() if number == 1 else say(pairs(3))
    assert ask("--limit", 1, "--retries", 1, "--timeout", 0.3) == 0
    assert len(stub.requests) == 2
    assert len(read_lines("qa.jsonl")) == 1


def test_a_slow_server_is_asked_again(ask, stub):
    def answer(number, body):
        time.sleep(0.6 if number == 1 else 0)
        return say(pairs(3))

    stub.answer = answer
    assert ask("--limit", 1, "--timeout", 0.2, "--retries", 1) == 0
    assert len(stub.requests) == 2


def test_waits_grow_and_the_server_may_ask_for_more(ask, stub):
    times = []

    def answer(number, body):
        times.append(time.monotonic())
        return [(500, b"", {}), (500, b"", {}), (429, b"", {"Retry-After": "1"}), say(pairs(3))][number - 1]

    stub.answer = answer
    assert ask("--limit", 1, "--backoff", 0.1) == 0
    first, second, third = (later - sooner for sooner, later in pairwise(times))
    assert first >= 0.1
    assert second >= 0.2
    assert third >= 1


def test_what_never_succeeds_is_listed_and_asked_again_by_the_next_run(ask, stub, capsys, read_lines):
    stub.answer = lambda number, body: say("never") if name_of(body) == "c.png" else say(pairs(3))
    assert ask("--retries", 2) == 2
    assert sum(name_of(body) == "c.png" for body in stub.bodies) == 3
    (failed,) = read_lines("qa.failed.jsonl")
    assert failed["image"] == "c.png"
    assert "the answer is no JSON" in failed["reason"]
    assert "(attempt 3)" in failed["reason"]
    assert "4 images = 0 done before + 3 made + 1 failed, listed in qa.failed.jsonl" in capsys.readouterr().out
    stub.requests.clear()
    stub.answer = lambda number, body: say(pairs(3))
    assert ask() == 0
    assert [name_of(body) for body in stub.bodies] == ["c.png"]
    assert sorted(record["image"] for record in read_lines("qa.jsonl")) == sorted(COLOURS)
    assert not os.path.exists("qa.failed.jsonl")
    assert "3 done before + 1 made + 0 failed" in capsys.readouterr().out
    stub.requests.clear()
    assert ask() == 0
    assert stub.requests == []


def test_a_broken_image_is_listed_and_not_asked_about(ask, stub, photos, read_lines):
    (photos / "c.png").write_bytes(b"no image")
    assert ask() == 2
    assert "c.png" not in [name_of(body) for body in stub.bodies]
    assert "photos/c.png: " in read_lines("qa.failed.jsonl")[0]["reason"]


def test_a_refused_request_is_not_repeated(ask, stub, read_lines):
    stub.answer = lambda number, body: (400, {"error": {"message": "image too large"}}, {})
    assert ask("--limit", 1) == 2
    assert len(stub.requests) == 1
    assert "HTTP 400" in read_lines("qa.failed.jsonl")[0]["reason"]
    assert "image too large" in read_lines("qa.failed.jsonl")[0]["reason"]


def test_after_ctrl_c_only_what_is_missing_is_asked(ask, stub, capsys, read_lines):
    def answer(number, body):
        if number == 3:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)
        return say(pairs(3))

    stub.answer = answer
    assert ask("--concurrency", 1) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "make_qa: interrupted"
    done = {record["image"] for record in read_lines("qa.jsonl")}
    assert len(done) in (1, 2)
    time.sleep(0.4)  # until the request that was under way has ended
    assert len(stub.requests) == 3, "nothing is asked after the interruption"
    stub.requests.clear()
    stub.answer = lambda number, body: say(pairs(3))
    assert ask() == 0
    assert {name_of(body) for body in stub.bodies} == set(COLOURS) - done
    assert sorted(record["image"] for record in read_lines("qa.jsonl")) == sorted(COLOURS)


@pytest.mark.parametrize("cut", [1, 40, "inside the last character", "a part of a job"])
def test_a_torn_file_is_mended(ask, stub, desk, read_lines, cut):
    stub.answer = lambda number, body: say(pairs(2, "猫"))
    style = ("--style", "detail", "--per-image", 2)
    assert ask(*style, "--concurrency", 1) == 0
    path = desk / "qa.jsonl"
    content, whole = path.read_bytes(), read_lines("qa.jsonl")
    if cut == "a part of a job":
        path.write_bytes(b"".join(content.splitlines(keepends=True)[:-1]))
    elif cut == "inside the last character":
        path.write_bytes(content[: content.rindex("猫".encode()) + 1])
    else:
        path.write_bytes(content[:-cut])
    stub.requests.clear()
    assert ask(*style) == 0
    assert [name_of(body) for body in stub.bodies] == [whole[-1]["image"]]
    assert read_lines("qa.jsonl") == whole


def test_another_style_is_added_to_the_same_file(ask, stub, read_lines):
    assert ask() == 0
    stub.requests.clear()
    assert ask("--style", "conversation", "detail") == 0
    assert len(stub.requests) == 4
    assert Counter(record["source"]["style"] for record in read_lines("qa.jsonl")) == {"conversation": 4, "detail": 4}


def test_concurrent_requests_write_whole_lines(ask, stub, photos, read_lines):
    for n in range(30):
        Image.new("RGB", (8, 8)).save(photos / f"many{n:02}.png")
    waiting = []

    def answer(number, body):
        waiting.append(1)
        time.sleep(0.02)
        most.append(len(waiting))
        waiting.pop()
        return say(pairs(3, "long " * 500))

    most = []
    stub.answer = answer
    assert ask("--concurrency", 8) == 0
    assert len({record["id"] for record in read_lines("qa.jsonl")}) == 34
    assert 1 < max(most) <= 8


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 500])
def test_the_key_is_sent_and_never_shown(ask, stub, monkeypatch, capsys, desk, status):
    monkeypatch.setenv("MY_KEY", KEY + "\n")
    said = {"error": {"message": f"Incorrect API key provided: {KEY}."}}
    stub.answer = lambda number, body: say(pairs(3)) if status == 200 else (status, said, {})
    assert ask("--api-key-env", "MY_KEY", "--retries", 1) == (0 if status == 200 else 2)
    assert stub.requests[0][1]["Authorization"] == f"Bearer {KEY}"
    shown = capsys.readouterr()
    written = "".join(path.read_text() for path in desk.glob("*.jsonl"))
    assert KEY not in shown.out + shown.err + written
    if status in (401, 403, 404):
        assert shown.err.startswith(f"make_qa: {stub.url}: ")
        assert f"(HTTP {status})" in shown.err
        assert shown.err.count("\n") == 1
    if status in (400, 500):
        assert f"HTTP {status}" in written
        assert "***" in written


def test_the_key_does_not_follow_a_redirect(ask, stub, monkeypatch, capsys):
    monkeypatch.setenv("MY_KEY", KEY)
    stub.answer = lambda number, body: (302, b"", {"Location": stub.url + "/elsewhere"})
    assert ask("--api-key-env", "MY_KEY") == 2
    assert all(path == "/v1/chat/completions" for path, _headers, _body in stub.requests)
    assert "redirects (HTTP 302), which is not followed" in capsys.readouterr().err


def test_nobody_there_stops_the_run(tool, photos, capsys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    argv = ("--image-folder", "photos", "-o", "qa.jsonl", "--base-url", url, "--model", "m", "--backoff", 0)
    assert tool("make_qa", *argv, "--retries", 1) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"make_qa: {url}: the endpoint cannot be reached")
    assert shown.count("\n") == 1


def test_a_dry_run_prints_one_request_without_the_image_and_sends_none(ask, stub, capsys, monkeypatch, desk):
    monkeypatch.setenv("MY_KEY", KEY)
    assert ask("--dry-run", "--api-key-env", "MY_KEY", "--style", "detail", "reasoning") == 0
    shown = capsys.readouterr().out
    body = json.loads(shown[: shown.rindex("make_qa: ")])
    uri = body["messages"][1]["content"][1]["image_url"]["url"]
    assert uri.startswith("data:image/jpeg;base64,<")
    assert "a.png" in uri
    assert "4 images x 2 styles = 8 requests; none was sent" in shown
    assert KEY not in shown
    assert stub.requests == []
    assert not (desk / "qa.jsonl").exists()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--base-url", "localhost:8000"], "--base-url: is no web address (got 'localhost:8000')"),
        (["--base-url", f"http://me:{KEY}@host/v1"], "--base-url: holds a password"),
        (["--base-url", f"ftp://me:{KEY}@host/v1"], "--base-url: is no web address (got 'host/v1')"),
        (["--api-key-env", "NOT_SET_7"], "the environment has no variable 'NOT_SET_7'"),
        (["--api-key-env", "ODD_KEY"], "--api-key-env: the key is empty or has characters"),
        (["--image-folder", "none"], "none: no such folder"),
        (["--image-folder", "bare"], "bare: holds no image"),
        (["-o", "qa.json"], "--output: must end in .jsonl"),
        (["-o", "none/qa.jsonl"], "none/qa.jsonl: cannot be written"),
        (["-o", "mine.jsonl"], "mine.jsonl:1: is no record of make_qa"),
        (["-o", "broken.jsonl"], "broken.jsonl:1: broken JSON"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_sent(ask, stub, desk, capsys, monkeypatch, argv, words):
    monkeypatch.setenv("ODD_KEY", f"{KEY}\nX: y")
    (desk / "bare").mkdir()
    (desk / "mine.jsonl").write_text('{"image": "a.png"}\n')
    (desk / "broken.jsonl").write_text("{\n{}\n")
    assert ask(*argv) == 2
    shown = capsys.readouterr()
    assert words in shown.err
    assert shown.err.count("\n") == 1
    assert KEY not in shown.err
    assert stub.requests == []


def test_answers_in_a_code_fence_or_after_thoughts_are_read():
    plain = parse_answer(pairs(2), 2)
    assert parse_answer(f"```json\n{pairs(2)}\n```", 2) == plain
    assert parse_answer(f"<think>[1] or [2]?</think>\n{pairs(2)}", 2) == plain
    assert parse_answer(json.dumps(json.loads(pairs(2))["pairs"]), 2) == plain
