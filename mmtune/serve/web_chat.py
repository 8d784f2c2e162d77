"""The tab to talk in: which components it has and how they look. What they do is in `web_answering.py`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from mmtune.chat.generate import Decoding
from mmtune.serve.web_answering import SECONDS_KEPT, ChatTab, connect, empty_key, leave
from mmtune.serve.web_files import SHOWN_SUFFIXES
from mmtune.serve.web_labels import Labels, Said, say
from mmtune.serve.web_models import AFTER, BEFORE, Side
from mmtune.serve.web_settings import add_settings
from mmtune.serve.web_shown import dialogue_page, name_title
from mmtune.serve.web_talk import Talk
from mmtune.serve.web_text import text

BUTTONS = ("retry", "undo", "new", "copy", "download")


@dataclass(frozen=True)
class Example:
    """A question to begin with.

    Attributes:
        question: a text, or empty.
        images: files in the folder of uploads.
    """

    question: str
    images: tuple[str, ...]


def add_chat(
    sides: Sequence[Side],
    open_talk: Callable[[], Talk],
    decoding: Decoding,
    seed: int,
    examples: Sequence[Example],
    language: gr.Radio,
    labels: Labels,
    *,
    compares: bool,
) -> ChatTab:
    """Put the dialogue into the tab that is open.

    Args:
        sides: who answers.
        open_talk: begins the dialogue of a browser tab.
        decoding: how answers are chosen, to begin with.
        seed: of draws, to begin with.
        examples: questions to begin with.
        language: of the page.
        labels: told what follows the language.
        compares: whether both sides are asked to begin with.
    """
    sees = sides[0].parts.transform is not None
    columns: dict[str, gr.Column] = {}
    chats: dict[str, gr.HTML] = {}
    with gr.Row(elem_classes="talks"):
        for side in sides:
            with gr.Column(min_width=300, visible=side.key == AFTER or compares) as columns[side.key]:
                chats[side.key] = _chat(side, labels, sees)
    status = gr.HTML("", elem_id="status", padding=False)
    box = _box(labels, sees)
    with gr.Row(elem_classes="actions"):
        buttons = {key: _button(key, labels) for key in BUTTONS}
        compare = _compare(labels, compares) if len(sides) > 1 else None
    if examples:
        _add_examples(examples, box, sees)
    settings = add_settings(sides, decoding, seed, labels)
    talk = gr.State(None, time_to_live=SECONDS_KEPT, delete_callback=leave)
    saved = gr.Textbox(visible="hidden", elem_id="saved")
    tab = ChatTab(talk, chats, columns, status, box, compare, settings, language, saved, sees)
    connect(tab, buttons, open_talk)
    return tab


def _chat(side: Side, labels: Labels, sees: bool) -> gr.HTML:
    name = shown_name(side)
    title = labels.add(gr.HTML(padding=False, elem_classes="name"), value=lambda language: name_title(name(language)))
    title.value = name_title(labels.first(name))
    return gr.HTML(
        dialogue_page((), labels.first(say(empty_key(side.key, sees)))),
        elem_id=f"chat-{side.key}", padding=False,
    )  # fmt: skip


def shown_name(side: Side) -> Said:
    """Return what says what the page calls a side."""

    def name(language: str) -> str:
        shown = side.name or text("base", language)
        return text("before_of", language).format(name=shown) if side.key == BEFORE else shown

    return name


def _box(labels: Labels, sees: bool) -> Any:
    """Where a question is written, and images are added where the model sees."""
    placeholder = say("ask" if sees else "ask_text")
    shared: dict[str, Any] = {
        "label": labels.first(say("your_question")), "show_label": False, "placeholder": labels.first(placeholder),
        "lines": 1, "max_lines": 8, "elem_id": "question", "submit_btn": True,
    }  # fmt: skip
    box: Any
    if sees:
        box = gr.MultimodalTextbox(
            sources=["upload"], file_types=list(SHOWN_SUFFIXES), file_count="multiple",
            max_plain_text_length=100_000, **shared,
        )  # fmt: skip
    else:
        box = gr.Textbox(**shared)
    return labels.add(box, label=say("your_question"), placeholder=placeholder)


def _button(key: str, labels: Labels) -> gr.Button:
    button = gr.Button(labels.first(say(key)), size="sm", variant="secondary", elem_id=f"do-{key}", min_width=96)
    return labels.add(button, value=say(key))


def _compare(labels: Labels, compares: bool) -> gr.Checkbox:
    label = labels.first(say("compare"))
    box = gr.Checkbox(compares, label=label, container=False, elem_id="compare", min_width=220)
    return labels.add(box, label=say("compare"))


def _add_examples(examples: Sequence[Example], box: Any, sees: bool) -> None:
    """Show questions to begin with; a click puts one into the box."""
    with gr.Row(elem_id="examples"):
        for example in examples:
            icon = example.images[0] if example.images else None
            button = gr.Button(example.question or "…", icon=icon, size="sm", variant="secondary", min_width=80)
            filled = {"text": example.question, "files": list(example.images)} if sees else example.question
            button.click(lambda filled=filled: filled, None, box, show_progress="hidden", api_visibility="private")
