"""What happens in the tab to talk in: questions, answers as they come, stop, again, back, anew, copy and download."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from mmtune.errors import MMTuneError
from mmtune.serve.job import Job
from mmtune.serve.web_models import AFTER, BEFORE
from mmtune.serve.web_settings import Settings, words_of
from mmtune.serve.web_shown import dialogue_page, error_line, name_of, note_line, notes_at_end
from mmtune.serve.web_talk import Talk
from mmtune.serve.web_text import LANGUAGES, text

SECONDS_BETWEEN_PIECES = 0.06
"""An answer is shown anew so often at most."""
SECONDS_KEPT = 4 * 3600
"""After which the dialogue of a tab that says nothing is forgotten."""
MAX_CHARACTERS = 100_000
"""Of a question."""
COPY_WORDS = {code: [text(key, code) for key in ("you", "model", "copied")] for code in LANGUAGES}
COPY_JS = f"(language) => window.mmtune.copy(...{json.dumps(COPY_WORDS)}[language])"
SAVE_JS = "(saved) => window.mmtune.save(saved)"
SILENT: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}

Change = dict[Any, Any]
Start = Callable[[list[str], int], Job]


@dataclass(frozen=True)
class ChatTab:
    """The components that events read and change.

    Attributes:
        talk: the state: a `Talk` of the browser tab.
        chats: by key of the side.
        columns: around them.
        status: the line below.
        box: where questions are written.
        compare: whether both sides are asked; None where there is one.
        settings: how answers are chosen.
        language: of the page.
        saved: dialogues on their way to the browser's downloads.
        sees: whether the box takes images.
    """

    talk: gr.State
    chats: dict[str, gr.HTML]
    columns: dict[str, gr.Column]
    status: gr.HTML
    box: Any
    compare: gr.Checkbox | None
    settings: Settings
    language: gr.Radio
    saved: gr.Textbox
    sees: bool


def connect(tab: ChatTab, buttons: dict[str, gr.Button], open_talk: Callable[[], Talk]) -> None:
    """Let components do what they are for.

    Args:
        tab: the components.
        buttons: `retry`, `undo`, `new`, `copy` and `download`.
        open_talk: begins the dialogue of a browser tab.
    """
    events = Events(tab, open_talk)
    asked = [tab.talk, tab.language, *([tab.compare] if tab.compare else []), *tab.settings.components]
    changed = [tab.talk, tab.box, tab.status, *tab.chats.values()]
    many: dict[str, Any] = {"concurrency_limit": None, **SILENT}
    tab.box.submit(events.ask, [tab.box, *asked], changed, **many)
    tab.box.stop(events.stop, tab.talk, None, **many)
    buttons["retry"].click(events.retry, asked, changed, **many)
    buttons["undo"].click(events.undo, [tab.talk, tab.language], changed, **many)
    buttons["new"].click(events.anew, [tab.talk, tab.language], changed, **many)
    tab.language.change(events.redraw, [tab.talk, tab.language], [*tab.chats.values()], **many)
    buttons["copy"].click(None, tab.language, None, js=COPY_JS, **SILENT)
    save = buttons["download"].click(events.save, [tab.talk, tab.language], [tab.talk, tab.saved, tab.status], **many)
    save.then(None, tab.saved, None, js=SAVE_JS, **SILENT)
    if tab.compare is not None:
        tab.compare.change(lambda is_on: gr.update(visible=is_on), tab.compare, tab.columns[BEFORE], **SILENT)


class Events:
    """What the components of the tab call.

    Args:
        tab: the components.
        open_talk: begins the dialogue of a browser tab.
    """

    def __init__(self, tab: ChatTab, open_talk: Callable[[], Talk]):
        self.tab, self.open_talk = tab, open_talk

    async def ask(self, box: Any, talk: Talk | None, language: str, *values: Any) -> AsyncIterator[Change]:
        """Answer what stands in the box; it comes back where that cannot be done."""
        asked = talk or self.open_talk()
        question, paths = (box["text"], box["files"]) if isinstance(box, dict) else (box, [])
        start = lambda keys, seed: asked.ask(str(question or "")[:MAX_CHARACTERS], paths, keys, seed)  # noqa: E731
        async for change in self._answer(asked, language, values, start, box):
            yield change

    async def retry(self, talk: Talk | None, language: str, *values: Any) -> AsyncIterator[Change]:
        """Answer the last question again."""
        asked = talk or self.open_talk()
        async for change in self._answer(asked, language, values, asked.retry, None):
            yield change

    async def _answer(
        self, talk: Talk, language: str, values: tuple[Any, ...], start: Start, box: Any
    ) -> AsyncIterator[Change]:
        try:
            keys, seed, was_changed = self._settle(talk, values)
            job = await asyncio.to_thread(start, keys, seed)
        except MMTuneError as error:
            kept = {} if talk.is_answering else {self.tab.box: self._box(box)}
            yield {self.tab.talk: talk, self.tab.status: error_line(error), **kept}
            return
        num_before = talk.worker.num_waiting - 1
        waiting = text("waiting", language).format(count=num_before) if num_before > 0 else ""
        yield {
            self.tab.talk: talk,
            self.tab.box: self._box(None, stops=True),
            **self._shown(talk, language, note_line(waiting)),
        }
        failed = None
        try:
            async for line in self._lines(talk, job, language):
                yield self._shown(talk, language, line)
        except MMTuneError as error:
            failed = error
        finally:  # also where the browser has gone
            job.cancel()
            talk.settle()
        notes = [text("anew", language)] if was_changed else []
        notes += notes_at_end(talk, keys, language, was_retried=box is None)
        line = error_line(failed) if failed else note_line(" · ".join(notes))
        yield {self.tab.box: self._box(box if failed else None), **self._shown(talk, language, line)}

    def _settle(self, talk: Talk, values: tuple[Any, ...]) -> tuple[list[str], int, bool]:
        """Take over the settings; return who is asked, the seed, and whether the dialogue began anew."""
        talk.require_rest()
        compares, rest = (values[0], values[1:]) if self.tab.compare else (False, values)
        system, words = words_of(self.tab.settings, rest)
        seed = talk.set_params(words)
        was_changed = system is not None and talk.set_system(system)
        return [key for key in self.tab.chats if key == AFTER or compares], seed, was_changed

    async def _lines(self, talk: Talk, job: Job, language: str) -> AsyncIterator[str]:
        """Let the talk take what the worker tells; yield the line below as often as there is something to show."""
        shown_at, line = 0.0, ""
        async for piece in job:
            talk.take(piece)
            if not piece.text:
                name = name_of(talk, piece.side, language)
                line = note_line(text("answering", language).format(name=name))
            if not piece.text or time.monotonic() - shown_at > SECONDS_BETWEEN_PIECES:
                shown_at = time.monotonic()
                yield line

    async def stop(self, talk: Talk | None) -> None:
        """Stop the answer under way."""
        if talk is not None:
            talk.stop()

    async def undo(self, talk: Talk | None, language: str) -> Change:
        """Take the last question back, into the box."""
        talk = talk or self.open_talk()
        try:
            question = talk.undo()
        except MMTuneError as error:
            return {self.tab.talk: talk, self.tab.status: error_line(error)}
        box = {"text": question, "files": []} if self.tab.sees else question
        return {self.tab.talk: talk, self.tab.box: box, **self._shown(talk, language, "")}

    async def anew(self, talk: Talk | None, language: str) -> Change:
        """Begin a new dialogue."""
        talk = talk or self.open_talk()
        talk.begin_anew()
        return {self.tab.talk: talk, self.tab.box: self._box(None), **self._shown(talk, language, "")}

    def save(self, talk: Talk | None, language: str) -> Change:
        """Hand the dialogues to the browser, as the files that `/save` writes."""
        talk = talk or self.open_talk()
        keys = [key for key, session in talk.sessions.items() if session.exchanges]
        if not keys:
            return {self.tab.talk: talk, self.tab.saved: "", self.tab.status: note_line(text("nothing_said", language))}
        try:
            files = {f"dialogue-{key}.json" if key != AFTER else "dialogue.json": talk.saved(key) for key in keys}
        except MMTuneError as error:
            return {self.tab.talk: talk, self.tab.saved: "", self.tab.status: error_line(error)}
        return {self.tab.talk: talk, self.tab.saved: json.dumps(files), self.tab.status: ""}

    async def redraw(self, talk: Talk | None, language: str) -> Change:
        """Show the dialogues in another language."""
        return self._chats(talk, language)

    def _shown(self, talk: Talk, language: str, line: str) -> Change:
        return {self.tab.status: line, **self._chats(talk, language)}

    def _chats(self, talk: Talk | None, language: str) -> Change:
        shown = {}
        for key, chat in self.tab.chats.items():
            turns, is_over = (talk.turns(key), not talk.is_answering) if talk else ([], True)
            shown[chat] = dialogue_page(turns, text(empty_key(key, self.tab.sees), language), is_over=is_over)
        return shown

    def _box(self, value: Any, *, stops: bool = False) -> Any:
        """The box with a question or empty; while an answer comes, with a stop button."""
        empty: Any = {"text": "", "files": []} if self.tab.sees else ""
        return gr.update(value=value or empty, submit_btn=not stops, stop_btn=stops)


def leave(talk: Talk | None) -> None:
    """Stop what a browser tab that is gone has asked."""
    if talk is not None:
        talk.stop()


def empty_key(key: str, sees: bool) -> str:
    """Return the key of what stands in a column before the first question."""
    return "empty_before" if key != AFTER else "empty" if sees else "empty_text"
