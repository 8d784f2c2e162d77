"""The tab of training runs: which run is shown, and when it is read again. What is shown is made by `run_page.py`."""

from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from mmtune.serve.run_page import run_page
from mmtune.serve.run_view import find_runs, fingerprint, read_run
from mmtune.serve.web_labels import Labels, say
from mmtune.serve.web_text import text

SECONDS_BETWEEN_LOOKS = 2.0
SILENT: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}


def add_runs(root: Path, tab: gr.Tab, language: gr.Radio, labels: Labels) -> gr.Timer:
    """Put the runs of a folder into the tab that is open, and return what lets them be read again and again.

    It starts when the tab is looked at; whoever shows another tab stops it.

    Args:
        root: the folder.
        tab: around it.
        language: of the page.
        labels: told what follows the language.
    """
    root = root.resolve()
    chosen = gr.Dropdown(find_runs(root), label=labels.first(say("run")), elem_id="run", allow_custom_value=True)
    labels.add(chosen, label=say("run"))
    shown = gr.HTML("", elem_id="run-page", padding=False)
    seen_state = gr.State(None)
    timer = gr.Timer(SECONDS_BETWEEN_LOOKS, active=False)

    def look(name: str | None, language: str, seen: Any) -> dict[Any, Any]:
        """Show a run where it has changed since it was shown."""
        names = find_runs(root)
        if name not in names:  # also whatever else a browser sends: no path is made of it
            name = names[0] if names else None
        mark = (name, language, names, fingerprint(root / name) if name else None)
        if mark == seen:
            return {seen_state: seen}
        page = run_page(read_run(root / name), language) if name else _none(root, language)
        return {chosen: gr.update(choices=names, value=name), shown: page, seen_state: mark}

    inputs, outputs = [chosen, language, seen_state], [chosen, shown, seen_state]
    asks: dict[str, Any] = {"fn": look, "inputs": inputs, "outputs": outputs, **SILENT}
    chosen.input(**asks)
    language.change(**asks)
    timer.tick(**asks)
    tab.select(lambda: gr.update(active=True), None, timer, **SILENT).then(**asks)
    return timer


def _none(root: Path, language: str) -> str:
    return f'<p class="note">{escape(text("no_runs", language).format(folder=root.name))}</p>'
