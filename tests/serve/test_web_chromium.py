"""The page in a real browser: ask about an image, stop, compare, copy, save, switch languages; on a telephone too."""

import json
import shutil
import threading

import pytest
from talk_workspace import TURNS
from web_workspace import at_home, home, parts, serving, sides, worker

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: see CONTRIBUTING.md")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if CHROMIUM is None:
    pytest.skip("needs a Chromium: see CONTRIBUTING.md", allow_module_level=True)

__all__ = ["at_home", "home", "parts", "sides", "worker"]
pytestmark = pytest.mark.slow

HOSTILE = "<img src=x onerror=\"document.title='hacked'\"><script>document.title='hacked'</script>"


@pytest.fixture(scope="module")
def url(sides, worker, home):
    with serving(sides, worker, home, [str(home / "red.png")]) as address:
        yield address


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium, url):
    """Return a function that opens the page; no request may leave this machine, and no script may fail."""
    contexts, wrong = [], []

    def open_page(**options):
        context = chromium.new_context(accept_downloads=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: wrong.append(request.url) if not is_own(request.url) else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("response", lambda reply: wrong.append(f"{reply.status} {reply.url}") if reply.status >= 400 else None)
        page.goto(url)
        page.wait_for_selector("#question textarea")
        return page

    def is_own(address):
        return address.startswith((f"{url}/", "data:", "blob:"))

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


def ask(page, question, image=None):
    if image is not None:
        page.set_input_files("#question input[type=file]", image)
        page.wait_for_selector("#question img")
    before = page.locator("#chat-after .said.user").count()
    page.fill("#question textarea", question)
    page.locator("#question button.submit-button").click()
    page.wait_for_function(f"document.querySelectorAll('#chat-after .said.user').length > {before}")
    page.wait_for_selector("#question button.submit-button")


def said(page, side="after"):
    return page.locator(f"#chat-{side} .said p").all_inner_texts()


def test_ask_compare_copy_save_and_switch(opened, home):
    page = opened(
        locale="en-US", viewport={"width": 1280, "height": 900}, permissions=["clipboard-read", "clipboard-write"]
    )
    page.get_by_role("tab", name="Training runs").wait_for()
    page.locator("#compare input").check()
    page.wait_for_selector("#chat-before")
    ask(page, "What colour?", home / "red.png")
    page.wait_for_function("document.querySelector('#chat-before').innerText.includes('red')")
    assert said(page) == said(page, "before") == ["What colour?", TURNS[0][1]]
    assert page.locator("#chat-after img").first.evaluate("each => each.naturalWidth") == 40

    ask(page, HOSTILE)
    assert said(page)[2] == HOSTILE
    assert page.title() != "hacked"

    page.locator("#do-copy").click()
    page.wait_for_selector("#do-copy[data-told='Copied']")
    assert page.evaluate("navigator.clipboard.readText()").startswith(f"You: What colour?\n\nModel: {TURNS[0][1]}")
    page.locator("#compare input").uncheck()
    page.locator("#chat-before").wait_for(state="hidden")
    with page.expect_download() as download:
        page.locator("#do-download").click()
    (record,) = json.loads(download.value.path().read_text(encoding="utf-8"))
    assert record["messages"][1]["content"][0]["image"].startswith("data:image;base64,")

    page.get_by_text("中文").click()
    page.get_by_role("tab", name="训练记录").wait_for()
    assert page.locator("#do-new").inner_text() == "新对话"
    assert said(page)[:2] == ["What colour?", TURNS[0][1]], "the dialogue stays"
    page.locator("#do-new").click()
    page.get_by_text("回形针").first.wait_for()


def test_an_answer_streams_and_stops(opened, monkeypatch):
    from mmtune.serve.job import Job

    tell, may_go_on, told = Job.tell, threading.Event(), []

    def tell_and_wait(job, piece):
        tell(job, piece)
        told.append(piece)
        while len(told) > 4 and not job.was_cancelled and not may_go_on.wait(0.02):
            pass

    monkeypatch.setattr(Job, "tell", tell_and_wait)
    page = opened(locale="en-US")
    page.fill("#question textarea", "Sure?")
    page.press("#question textarea", "Enter")
    page.wait_for_function("/^[^…]+/.test(document.querySelector('#chat-after .said.model')?.innerText)")
    page.locator("#question button.stop-button").click()
    page.get_by_text("Stopped.").wait_for()
    may_go_on.set()
    page.wait_for_selector("#question button.submit-button")
    assert len(said(page)) == 2
    monkeypatch.setattr(Job, "tell", tell)
    page.locator("#do-retry").click()
    page.get_by_text("At temperature 0").wait_for()
    page.locator("#do-undo").click()
    page.wait_for_selector("#chat-after .empty")
    assert page.input_value("#question textarea") == "Sure?"


def test_a_pasted_image_and_an_example_are_asked_about(opened, home):
    page = opened(locale="en-US")
    page.focus("#question textarea")
    data = list((home / "red.png").read_bytes())
    page.evaluate(
        """(data) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([new Uint8Array(data)], "pasted.png", { type: "image/png" }));
          const event = new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true });
          document.querySelector("#question textarea").dispatchEvent(event);
        }""",
        data,
    )
    page.wait_for_selector("#question img")
    ask(page, "What colour?")
    assert said(page) == ["What colour?", TURNS[0][1]]
    page.locator("#examples button").first.click()
    page.wait_for_selector("#question img")


def test_a_telephone_has_no_sideways_scrolling(opened, home):
    page = opened(locale="zh-CN", viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    page.get_by_role("tab", name="对话").wait_for()
    ask(page, "What colour? " + "x" * 300, home / "red.png")
    page.locator("#settings button").first.click()
    for name in ("#question", "#do-retry", "#do-download", "#compare", "#param-temperature", "#system"):
        box = page.locator(name).bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.get_by_role("tab", name="训练记录").click()
    page.wait_for_selector(".run .facts")
    assert "已完成" in page.inner_text(".run .facts")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_run_that_goes_on_is_shown_as_it_goes(opened, home):
    log, manifest = home / "run" / "log.jsonl", home / "run" / "manifest.json"
    whole, complete = log.read_text(), manifest.read_text()
    lines = whole.splitlines(keepends=True)
    try:
        manifest.unlink()
        log.write_text(lines[0])
        page = opened(locale="en-US")
        page.get_by_role("tab", name="Training runs").click()
        page.get_by_text("training now").wait_for()
        page.get_by_text("step 60 of 120").wait_for()
        log.write_text(whole)
        page.get_by_text("step 120 of 120").wait_for(timeout=10_000)
    finally:
        log.write_text(whole)
        manifest.write_text(complete)
    page.get_by_text("complete").first.wait_for(timeout=10_000)
