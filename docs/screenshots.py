"""Draw the pictures of README.md and docs/web.md anew: the pages of the demo's runs, looked at with Chromium.

Run `make demo` first. Needs `pip install playwright` and a Chromium: python docs/screenshots.py
"""

import argparse
import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

FOLDER = Path(__file__).parent / "images"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "chrome")
DESKTOP, PHONE = {"width": 1240, "height": 860}, {"width": 390, "height": 844}
COLOURS = 128
"""Of a picture: a page has few, and the file is a third as large."""


def main() -> int:
    """Draw all pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", default="runs/demo/finetune", help="a run of the demo")
    parser.add_argument("--before", default="runs/demo/pretrain", help="what it is compared with")
    parser.add_argument("--data", default="runs/demo/data", help="the demo's data, for its images")
    parser.add_argument(
        "--compared", default="runs/demo/compare/page.html", help="the page that compares the demo's models"
    )
    parser.add_argument("--shown-run", help="on the tab of training runs (the one that wrote last)")
    args = parser.parse_args()
    images = Path(args.data) / "images"
    command = ["web", args.run, "--before", args.before, "--port", "0"]
    command += ["--examples", str(write_examples(images))]
    FOLDER.mkdir(exist_ok=True)
    with served(command) as url, sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        draw_comparison(browser, Path(args.compared))
        draw_chat(browser, url, images)
        draw_phone(browser, url, images)
        draw_runs(browser, url, args.shown_run)
        browser.close()
    return 0


def find_chromium() -> str:
    """Return the Chromium of this machine."""
    path = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if path is None:
        raise SystemExit("screenshots: there is no Chromium. Install one, such as: apt install chromium")
    return path


def write_examples(images: Path) -> Path:
    """Write questions to begin with, beside the images that they name."""
    asked = {"What is this?": "what_is_this_003", "How many things are there?": "how_many_000"}
    asked |= {"What is on the left?": "left_or_right_001", "Describe the image.": "describe_002"}
    lines = [f'{{"question": "{text}", "image": "heldout_{name}.png"}}\n' for text, name in asked.items()]
    path = images / "examples_of_page.jsonl"
    path.write_text("".join(lines), encoding="utf-8")
    return path


@contextlib.contextmanager
def served(command: list[str]) -> Iterator[str]:
    """Give the address of a page that a process of its own serves."""
    process = subprocess.Popen(
        [sys.executable, "-m", "mmtune", *command], stderr=subprocess.PIPE, text=True, env=os.environ | {"TERM": "dumb"}
    )
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if found := re.search(r"the page is at (http://\S+?),", line):
                yield found[1]
                return
        raise SystemExit(f"screenshots: mmtune {' '.join(command)} ended with {process.wait()}")
    finally:
        process.terminate()
        process.wait(30)


def open_page(browser: Browser, url: str, size: dict[str, int], language: str) -> Page:
    """Open the page as somebody who reads a language."""
    is_phone = size is PHONE
    context = browser.new_context(
        viewport=size, locale=language, device_scale_factor=2 if is_phone else 1, is_mobile=is_phone, has_touch=is_phone
    )
    page = context.new_page()
    page.goto(url)
    page.wait_for_selector("#question textarea")
    page.wait_for_timeout(1500)
    return page


def ask(page: Page, question: str, image: Path | None = None) -> None:
    """Ask, and wait for both answers."""
    if image is not None:
        page.set_input_files("#question input[type=file]", image)
        page.wait_for_selector("#question img")
    page.fill("#question textarea", question)
    page.locator("#question button.submit-button").click()
    page.wait_for_selector("#question button.stop-button")
    page.wait_for_selector("#question button.submit-button", timeout=120_000)
    page.wait_for_timeout(500)


def draw_comparison(browser: Browser, path: Path) -> None:
    """The head of the comparison page: what it found, and one question before and after."""
    page = browser.new_context(viewport={"width": 980, "height": 1000}, color_scheme="light").new_page()
    page.goto(path.resolve().as_uri())
    first, last = page.locator("h1").bounding_box(), page.locator(".example").bounding_box()
    assert first is not None
    assert last is not None
    top, bottom = first["y"] - 24, last["y"] + last["height"] + 12
    clip = {"x": 0, "y": top, "width": 980, "height": bottom - top}
    page.screenshot(path=FOLDER / "compare.png", full_page=True, clip=clip)
    with_few_colours(FOLDER / "compare.png")


def draw_chat(browser: Browser, url: str, images: Path) -> None:
    """Before and after side by side, in English."""
    page = open_page(browser, url, DESKTOP, "en-US")
    ask(page, "What is this?", images / "heldout_what_is_this_000.png")
    ask(page, "Is it an animal?")
    save(page, "web_chat")


def draw_phone(browser: Browser, url: str, images: Path) -> None:
    """A telephone, in Chinese."""
    page = open_page(browser, url, PHONE, "zh-CN")
    page.locator("#compare input").uncheck()
    ask(page, "How many things are there?", images / "heldout_how_many_000.png")
    save(page, "web_phone")


def draw_runs(browser: Browser, url: str, shown: str | None) -> None:
    """The tab of training runs in both languages."""
    for language, name in (("en-US", "web_runs"), ("zh-CN", "web_runs_zh")):
        page = open_page(browser, url, DESKTOP, language)
        page.get_by_role("tab").nth(1).click()
        page.wait_for_selector(".run .facts")
        if shown:
            page.locator("#run input").fill(shown)
            page.locator("#run input").press("Enter")
            page.wait_for_timeout(1500)
        save(page, name, is_whole=language == "en-US")


def save(page: Page, name: str, *, is_whole: bool = False) -> None:
    """Write what the page shows, in few colours."""
    path = FOLDER / f"{name}.png"
    page.evaluate("scrollTo(0, 0)")
    page.screenshot(path=path, full_page=is_whole)
    with_few_colours(path)


def with_few_colours(path: Path) -> None:
    """Write a picture anew, and say how large it is."""
    with Image.open(path) as image:
        few = image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    few.save(path, optimize=True)
    print(f"{path}: {path.stat().st_size // 1024} kB")


if __name__ == "__main__":
    sys.exit(main())
