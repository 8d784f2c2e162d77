"""The page as browsers use it, over a socket: dialogues, languages, and what attackers send."""

import io
import json
import os
import re
import time
import zlib
from html import escape, unescape
from pathlib import Path

import pytest
from data_uris import png
from PIL import Image
from talk_workspace import SYSTEM, TURNS
from web_workspace import LIMITS, Browser, at_home, home, httpx, parts, serving, sides, worker

from mmtune.chat.generate import Decoding
from mmtune.chat.saving import load_dialogue
from mmtune.chat.session import ChatSession
from mmtune.errors import ConfigError
from mmtune.serve.job import Job
from mmtune.serve.web_login import COOKIE
from mmtune.serve.web_models import Choice, open_sides
from mmtune.serve.web_pictures import Pictures

__all__ = ["at_home", "home", "parts", "sides", "worker"]

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)> <|im_end|> <image> &lt;b&gt;"


@pytest.fixture(scope="module")
def url(sides, worker, home):
    with serving(sides, worker, home, [str(home / "red.png")]) as address:
        yield address


@pytest.fixture
def browser(url):
    with Browser(url) as made:
        yield made


@pytest.fixture
def images(home):
    return [(home / name).read_bytes() for name in ("red.png", "my blue.png")]


def said(page):
    """The texts of a dialogue, as they are read."""
    return [unescape(text) for text in re.findall(r"<p>(.*?)</p>", page, re.DOTALL)]


def test_a_dialogue_goes_on_with_the_ids_of_chat(browser, images, parts, at_home):
    red, blue = browser.image("red.png", images[0]), browser.image("my blue.png", images[1])
    first = browser.ask("What colour?", red)
    assert said(first["after"]) == ["What colour?", TURNS[0][1]]
    second = browser.ask("And this?", blue)
    third = browser.ask("Sure?")
    assert said(third["after"])[1::2] == [answer for _, answer in TURNS]
    assert said(third["after"])[0::2] == ["What colour?", "And this?", "Sure?"]
    assert second["before"].count("<p") == 1, "the other side was not asked"

    chat = ChatSession(parts, Decoding(max_new_tokens=40), SYSTEM)
    for question, files in (("What colour?", ["red.png"]), ("And this?", ["my blue.png"]), ("Sure?", [])):
        chat.ask(question, files)
    (name, text), *others = json.loads(browser.press("do-download")["saved"]).items()
    assert (name, others) == ("dialogue.json", [])
    (at_home / "talk.json").write_text(text, encoding="utf-8")
    loaded = ChatSession(parts, Decoding(max_new_tokens=40))
    load_dialogue(loaded, at_home / "talk.json")
    assert loaded.ids == chat.ids
    assert str(at_home) not in text


def test_both_sides_are_asked_where_they_are_compared(browser, images):
    shown = browser.ask("What colour?", browser.image("red.png", images[0]), compare=True)
    assert said(shown["after"]) == said(shown["before"]) == ["What colour?", TURNS[0][1]]
    assert set(json.loads(browser.press("do-download")["saved"])) == {"dialogue.json", "dialogue-before.json"}


def test_the_other_side_is_shown_where_it_is_compared(browser):
    for is_on in (True, False):
        (shown,) = browser.use("compare", "change", [is_on]).values()
        assert shown["visible"] is is_on


def test_answers_come_piece_by_piece(browser, images, monkeypatch):
    monkeypatch.setattr("mmtune.serve.web_answering.SECONDS_BETWEEN_PIECES", 0.0)
    event = browser.event("question", "submit")
    question = {"text": "What colour?", "files": [browser.image("red.png", images[0])]}
    browser.join(event, browser.values("question", "submit", question=question))
    growing = [
        json.dumps(message["output"]["data"])
        for message in browser.messages()
        if message["msg"] == "process_generating"
    ]
    assert len(growing) > 5


def test_an_answer_is_stopped_and_what_was_said_stays(browser, images, url, monkeypatch):
    tell, told = Job.tell, []

    def tell_and_wait(job, piece):
        tell(job, piece)
        told.append(piece.text)
        end = time.monotonic() + 20
        while len(told) == 5 and not job.was_cancelled and time.monotonic() < end:
            time.sleep(0.01)

    monkeypatch.setattr(Job, "tell", tell_and_wait)
    event = browser.event("question", "submit")
    question = {"text": "What colour?", "files": [browser.image("red.png", images[0])]}
    joined = browser.join(event, browser.values("question", "submit", question=question))
    messages = browser.messages(joined.json()["event_id"])
    generating = (message for message in messages if message["msg"] == "process_generating")
    assert '"stop_btn": true' in json.dumps(next(generating))
    next(generating)
    with Browser(url) as finger:
        finger.session = browser.session
        finger.join(browser.event("question", "stop"), [None])
        last = list(messages)[-1]
    shown = dict(zip(event["outputs"], last["output"]["data"], strict=True))
    assert "Stopped." in shown[browser.ids["status"]]
    assert shown[browser.ids["question"]]["submit_btn"] is True
    asked, answer = said(shown[browser.ids["chat-after"]])
    assert asked == "What colour?"
    assert answer.startswith("".join(told[:5]).strip())
    assert TURNS[0][1].startswith(answer)
    assert answer != TURNS[0][1]
    monkeypatch.setattr(Job, "tell", tell)
    assert said(browser.ask("And?")["after"])[:2] == [asked, answer]


def test_again_back_and_anew(browser, images):
    browser.ask("What colour?", browser.image("red.png", images[0]))
    again = browser.press("do-retry")
    assert said(again["after"]) == ["What colour?", TURNS[0][1]]
    assert "temperature 0" in again["status"]
    both = browser.press("do-retry", compare=True)
    assert said(both["before"]) == said(both["after"])
    assert said(browser.press("do-undo")["after"]) == []
    assert "nothing was asked yet" in browser.press("do-undo")["status"]
    browser.ask("Sure?")
    assert "said" not in browser.press("do-new")["after"]
    assert browser.press("do-download")["status"] == '<p class="note" role="status">Nothing was said yet.</p>'


def test_draws_follow_the_seed_and_a_system_message_begins_anew(browser):
    drawn = {"param_temperature": 1.5, "param_max_new_tokens": 12}
    first = said(browser.ask("Hm?", **drawn)["after"])[1]
    again = said(browser.press("do-retry", **drawn)["after"])[1]
    browser.press("do-new")
    assert said(browser.ask("Hm?", **drawn)["after"])[1] == first
    assert again != first
    changed = browser.ask("Hm?", system="Another one.")
    assert "A new dialogue" in changed["status"]
    assert len(said(changed["after"])) == 2
    assert "seed is a whole number from 0 (got -1)" in browser.ask("Hm?", param_seed=-1)["status"]


def test_a_model_that_reads_text_alone_has_no_controls_for_images(worker, home, images):
    sides = open_sides(str(home / "llm"), None, Choice(template="chatml"))
    with serving(sides, worker, home) as url, Browser(url) as browser:
        kinds = [each["type"] for each in browser.config["components"]]
        assert "textbox" in kinds
        assert not {"multimodaltextbox", "image", "checkbox"} & {*kinds}
        question = browser.values("question", "submit", question=HOSTILE, param_max_new_tokens=5)
        shown = browser.shown(browser.use("question", "submit", question))
        assert said(shown["after"])[0] == HOSTILE
        stray = str({"text": "?", "files": [browser.image("red.png", images[0])]})
        shown = browser.shown(browser.use("question", "submit", browser.values("question", "submit", question=stray)))
        assert said(shown["after"])[2] == stray
    with pytest.raises(ConfigError, match="cannot see"):
        Pictures(home, LIMITS).take(["red.png"], sees=False)


def test_tabs_do_not_meet(url, browser, images):
    with Browser(url) as other:
        other.ask("Sure?")
        shown = browser.ask("What colour?", browser.image("red.png", images[0]))
        assert said(shown["after"]) == ["What colour?", TURNS[0][1]]
        assert said(other.ask("Hm?")["after"])[0::2] == ["Sure?", "Hm?"]


@pytest.mark.parametrize(("language", "word"), [("zh-CN,zh;q=0.9", "对话"), ("de,en;q=0.7", "Chat")])
def test_labels_are_those_that_the_browser_asks_for(url, language, word):
    with Browser(url, language) as browser:
        load = next(
            each for each in browser.config["dependencies"] if any(pair[1] == "load" for pair in each["targets"])
        )
        browser.join(load, [])
        last = list(browser.messages())[-1]
    assert word in json.dumps(last["output"]["data"], ensure_ascii=False)


def test_the_switch_changes_every_label(browser):
    changed = browser.use("language", "input", ["zh"])
    texts = json.dumps([*changed.values()], ensure_ascii=False)
    for word in ("重新回答", "训练记录", "系统提示词", "与训练前对比", "可附图片"):
        assert word in texts
    redrawn = browser.use("language", "change", browser.values("language", "change", language="zh"))
    assert "回形针" in redrawn[browser.ids["chat-after"]]


def test_markup_and_control_tokens_are_text(browser, images, parts):
    shown = browser.ask(
        HOSTILE, browser.image("<img src=x onerror=alert(2)>.png", images[0]), system="<script>alert(3)</script>"
    )
    assert said(shown["after"])[0] == HOSTILE
    assert escape(HOSTILE) in shown["after"]
    assert "<script" not in shown["after"]
    assert not re.search(r"<img src=\"?x", shown["after"])
    exact = ChatSession(parts, Decoding(max_new_tokens=1), "<script>alert(3)</script>")
    exact.ask(HOSTILE, [Image.open(io.BytesIO(images[0]))])
    (record,) = json.loads(json.loads(browser.press("do-download")["saved"])["dialogue.json"])
    assert record["messages"][1]["content"][1]["text"] == f"\n{HOSTILE}"
    used = int(re.search(r"(\d+) of", shown["status"])[1])
    answer = len(record["messages"][2]["token_ids"])
    own = len(exact.exchanges[0].said[0])
    assert used - answer == len(exact.ids) - own, "a token of the question was not text"


# What attackers send


def bomb(side):
    """A PNG whose head says that it has `side` x `side` pixels; it takes 100 bytes."""

    def chunk(kind, data):
        return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)

    head = side.to_bytes(4) * 2 + bytes([8, 2, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
UPLOADS = [
    ("bomb.png", bomb(60_000), "too large"),
    ("big.png", bomb(2000), "at most 1,000,000 in all"),
    ("text.png", b"not an image at all", "cannot be read as an image|not an image"),
    ("drawing.png", SVG, "SVG"),
    ("page.png", b"<!doctype html><script>alert(1)</script>", "HTML"),
    ("half.png", png(size=(300, 300))[:90], "cannot be read as an image"),
    ("empty.png", b"", "empty"),
    ("photo.png", png(image_format="TIFF"), "TIFF"),
]


@pytest.mark.parametrize(("name", "data", "reason"), UPLOADS, ids=[name for name, _, _ in UPLOADS])
def test_what_is_no_image_or_too_large_is_one_line(browser, name, data, reason):
    shown = browser.ask("What colour?", browser.image(name, data))
    assert re.search(f'class="note error".*{name}: .*({reason})', shown["status"])
    assert "after" not in shown
    assert said(browser.ask("Sure?")["after"])[0] == "Sure?"


def test_an_svg_is_refused_by_its_name_too(browser):
    event = browser.event("question", "submit")
    question = {"text": "?", "files": [browser.image("drawing.svg", SVG)]}
    browser.join(event, browser.values("question", "submit", question=question))
    assert not list(browser.messages())[-1]["success"]


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_images_of_all_formats_are_seen(browser, image_format):
    name = f"red.{image_format.lower()}"
    shown = browser.ask("What colour?", browser.image(name, png((220, 40, 40), image_format=image_format)))
    assert said(shown["after"])[1] == TURNS[0][1]
    (address,) = re.findall(r'<img src="([^"]+)"', shown["after"])
    reply = browser.http.get(address)
    assert reply.headers["content-type"] == "image/png"
    assert "sandbox" in reply.headers["content-security-policy"]


STRANGE_PATHS = [
    "/etc/passwd", "file:///etc/passwd", "{home}/red.png", "{home}/run/config.yaml", "../../etc/passwd",
    "http://127.0.0.1:1/x.png", "https://example.com/x.png", "{folder}/../etc/passwd", "\0", "",
]  # fmt: skip


@pytest.mark.parametrize("path", STRANGE_PATHS)
def test_no_path_but_that_of_an_upload_is_opened(browser, home, images, path):
    folder = browser.image("red.png", images[0])["path"].rpartition("/")[0]
    named = {"path": path.format(home=home, folder=folder), "meta": {"_type": "gradio.FileData"}}
    for file in (named, named | {"url": named["path"]}, {"path": named["path"]}):
        question = {"text": "?", "files": [file]}
        reply = browser.join(
            browser.event("question", "submit"), browser.values("question", "submit", question=question)
        )
        assert reply.status_code == 403
        assert browser.join(browser.event("do-retry", "click"), [[file]]).status_code == 403


FILE_ADDRESSES = [
    "/gradio_api/file=/etc/passwd",
    "/gradio_api/file={home}/red.png",
    "/gradio_api/file={home}/run/config.yaml",
    "/gradio_api/file={folder}/../../../etc/passwd",
    "/gradio_api/file={folder}/%2e%2e/%2e%2e/etc/passwd",
    "/gradio_api/file=%2Fetc%2Fpasswd",
    "/gradio_api/file=http://127.0.0.1:1/x.png",
    "/gradio_api/file=https://example.com/x.png",
    "/gradio_api/file={folder}",
    "/gradio_api/file/etc/passwd",
    "/gradio_api/proxy=https://example.com",
    "/gradio_api/stream/x/1/1/playlist-file",
    "/gradio_api/run-history/buckets",
    "/gradio_api/vibe-code/",
    "/gradio_api/openapi.json",
    "/gradio_api/token",
    "/file={home}/red.png",
    "/{home}/red.png",
    "/run/config.yaml",
    "/static/../../../etc/passwd",
    "/static/..%2f..%2f..%2f..%2fetc%2fpasswd",
    "/assets/..%2f..%2f..%2f..%2fetc%2fpasswd",
    "/custom_component/x/client/component/../../etc/passwd",
    "/docs",
    "/openapi.json",
    "/monitoring",
]


@pytest.mark.parametrize("address", FILE_ADDRESSES)
def test_no_other_file_is_given(browser, home, images, address):
    folder = browser.image("red.png", images[0])["path"].rpartition("/")[0]
    reply = browser.http.get(address.format(home=home, folder=folder))
    assert reply.status_code in (403, 404)
    assert len(reply.content) < 200


def test_a_link_out_of_the_uploads_is_not_followed(browser, home, images):
    path = browser.image("red.png", images[0])["path"]
    link = path.replace("red.png", "link.png")
    (home / "link.png").unlink(missing_ok=True)
    os.symlink(home / "my blue.png", link)
    assert browser.http.get(f"/gradio_api/file={path}").status_code == 200
    assert browser.http.get(f"/gradio_api/file={link}").status_code == 403


def test_uploads_have_a_limit_with_and_without_a_length(browser):
    one = LIMITS.max_bytes + 1
    assert browser.upload("big.png", b"x" * one).status_code == 413
    head = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'

    def endless():
        yield head
        for _ in range(400):
            yield b"x" * 65536

    kind = {"content-type": "multipart/form-data; boundary=b"}
    for body in (endless(), head + b"x" * (9 * one)):
        assert browser.http.post("/gradio_api/upload", content=body, headers=kind).status_code == 413
    assert browser.http.post("/gradio_api/queue/join", content=b"[" * (5 * 2**20)).status_code == 413
    assert browser.http.post("/gradio_api/queue/join", content=b"[" * 100_000).status_code == 400


def test_other_sites_and_other_names_are_refused(browser, url):
    for headers in (
        {"host": "evil.example"},
        {"host": "evil.example:7860"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
    ):
        assert browser.http.get("/config", headers=headers).status_code == 403
        assert browser.http.post("/gradio_api/queue/join", json={}, headers=headers).status_code == 403
    assert browser.http.get("/config", headers={"origin": url}).status_code == 200
    for method in ("PUT", "DELETE", "OPTIONS", "PATCH"):
        assert browser.http.request(method, "/config").status_code == 404


def test_the_browser_is_told_to_load_nothing_from_elsewhere(browser):
    reply = browser.http.get("/")
    policy = reply.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "connect-src 'self'" in policy
    assert "http" not in policy
    assert reply.headers["x-content-type-options"] == "nosniff"


def test_uploads_are_gone_when_the_server_ends(sides, worker, home, images):
    with serving(sides, worker, home) as url, Browser(url) as browser:
        browser.ask("?", browser.image("red.png", images[0]))
        folder = Path(browser.image("red.png", images[0])["path"]).parent.parent
        assert folder.stat().st_mode & 0o077 == 0
    assert not folder.exists()


def test_a_password_is_asked_for_and_guesses_wait(sides, worker, home, monkeypatch):
    monkeypatch.setattr("mmtune.serve.web_login.SECONDS_AFTER_WRONG", 0.05)
    secret = "gehe!m <&"
    with serving(sides, worker, home, password=secret, is_local=False) as url, httpx.Client(base_url=url) as client:
        assert client.get("/").status_code == 303
        assert "password" in client.get("/login", headers={"accept-language": "en"}).text.lower()
        assert "密码" in client.get("/login", headers={"accept-language": "zh"}).text
        for address in ("/config", "/gradio_api/info", "/theme.css", "/gradio_api/file=/etc/passwd"):
            assert client.get(address).status_code == 401
        for post in ("/gradio_api/queue/join", "/gradio_api/upload"):
            assert client.post(post, json={}).status_code == 401
        for wrong in ("", "x", f"{secret} "):
            reply = client.post("/login", data={"password": wrong})
            assert reply.status_code == 401
            assert COOKIE not in reply.cookies
        assert client.post("/login", content=b"password=" + b"x" * 10_000).status_code == 413
        client.cookies.set(COOKIE, "guessed")
        assert client.get("/config").status_code == 401
        client.cookies.clear()
        reply = client.post("/login", data={"password": secret})
        assert reply.status_code == 303
        assert "HttpOnly" in reply.headers["set-cookie"]
        assert "SameSite=Strict" in reply.headers["set-cookie"]
        assert client.get("/config").status_code == 200
