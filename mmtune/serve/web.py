"""The page of `mmtune web`: a tab to talk in, a tab of training runs, in two languages. It is served by `web_app.py`.

No Gradio event trusts what a browser sends: dialogues are kept on this side, and names are looked up, not opened.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import gradio as gr

from mmtune.chat.generate import Decoding
from mmtune.serve.web_chat import Example, add_chat
from mmtune.serve.web_labels import Labels, say
from mmtune.serve.web_models import BEFORE, Side
from mmtune.serve.web_runs import add_runs
from mmtune.serve.web_talk import Talk
from mmtune.serve.web_text import LANGUAGES, preferred_language

SYSTEM_FONTS = [
    "system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "PingFang SC", "Microsoft YaHei",
    "Noto Sans CJK SC", "sans-serif",
]  # fmt: skip
"""Fonts that are there: none is fetched."""
MONO_FONTS = ["ui-monospace", "SFMono-Regular", "Consolas", "monospace"]
SILENT: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}


@dataclass(frozen=True)
class PageOptions:
    """What a page is made with.

    Attributes:
        decoding: how answers are chosen, to begin with.
        seed: of draws, to begin with.
        runs: folder of the training runs.
        compares: whether both sides are asked to begin with.
    """

    decoding: Decoding
    seed: int
    runs: Path
    compares: bool


def build_page(
    sides: Sequence[Side], open_talk: Callable[[], Talk], options: PageOptions, examples: Sequence[Example] = ()
) -> gr.Blocks:
    """Return the page.

    Args:
        sides: who answers.
        open_talk: begins the dialogue of a browser tab.
        options: what it is made with.
        examples: questions to begin with.
    """
    labels = Labels()
    title = f"mmtune: {sides[0].name}"
    with gr.Blocks(title=title, analytics_enabled=False, fill_width=True, delete_cache=(3600, 24 * 3600)) as page:
        with gr.Row(elem_id="head"):
            gr.HTML("<h1>mmtune</h1>", padding=False)
            names = [(name, code) for code, name in LANGUAGES.items()]
            language = gr.Radio(names, value="en", show_label=False, container=False, elem_id="language")
        with gr.Tabs():
            with gr.Tab(labels.first(say("tab_chat")), id="chat") as chat_tab:
                add_chat(
                    sides, open_talk, options.decoding, options.seed, examples, language, labels,
                    compares=options.compares and any(side.key == BEFORE for side in sides),
                )  # fmt: skip
            with gr.Tab(labels.first(say("tab_runs")), id="runs") as runs_tab:
                timer = add_runs(options.runs, runs_tab, language, labels)
        labels.add(chat_tab, label=say("tab_chat"))
        labels.add(runs_tab, label=say("tab_runs"))
        chat_tab.select(lambda: gr.update(active=False), None, timer, **SILENT)
        _follow_language(page, language, labels)
    page.queue(max_size=256, default_concurrency_limit=None, api_open=False)
    return page


def _follow_language(page: gr.Blocks, language: gr.Radio, labels: Labels) -> None:
    """Let all labels be those of the language that the browser asks for, and then of the one that is chosen."""

    def first(request: gr.Request) -> list[Any]:
        code = preferred_language(request.headers.get("accept-language", ""))
        return [code, *labels.updates(code)]

    def chosen(code: str) -> list[Any]:
        return labels.updates(code if code in LANGUAGES else labels.language)

    page.load(first, None, [language, *labels.components], **SILENT)
    language.input(chosen, language, labels.components, **SILENT)


def looks() -> dict[str, Any]:
    """Return theme, style and script of the page, as Gradio takes them."""
    folder = files("mmtune.serve")
    theme = gr.themes.Soft(primary_hue="blue", neutral_hue="slate", font=SYSTEM_FONTS, font_mono=MONO_FONTS)
    theme.set(
        background_fill_primary="*neutral_50",  # `set` forgets that of this theme
        block_title_background_fill="transparent", block_title_background_fill_dark="transparent",
        block_title_text_color="*body_text_color", block_title_text_color_dark="*body_text_color",
        block_title_padding="0", block_title_text_weight="500",
    )  # fmt: skip
    script = (folder / "web.js").read_text(encoding="utf-8")
    style = (folder / "web.css").read_text(encoding="utf-8")
    return {"theme": theme, "css": style, "head": f"<script>{script}</script>"}
