"""How a dialogue is shown: turns, notes and errors as HTML in which every text is escaped."""

from collections.abc import Sequence
from html import escape

from mmtune.errors import MMTuneError
from mmtune.serve.web_files import file_address
from mmtune.serve.web_talk import Talk
from mmtune.serve.web_text import text
from mmtune.serve.web_turns import Turn

UNDER_WAY = "…"
"""What stands for an answer before its first word."""
EMPTY = "∅"
"""What stands for an answer that is empty."""


def dialogue_page(turns: Sequence[Turn], empty: str, *, is_over: bool = True) -> str:
    """Return turns as HTML, all texts escaped: none of them becomes markup.

    Args:
        turns: of one side.
        empty: what stands there before the first one.
        is_over: whether the last answer is whole.
    """
    if not turns:
        return f'<p class="empty">{escape(empty)}</p>'
    last = len(turns)
    return "".join(_turn(turn, is_over=is_over or number < last) for number, turn in enumerate(turns, 1))


def _turn(turn: Turn, *, is_over: bool) -> str:
    images = "".join(f'<img src="{escape(file_address(path))}" alt="">' for path in turn.images)
    question = f"<p>{escape(turn.question)}</p>" if turn.question else ""
    answer = turn.answer or (EMPTY if is_over else UNDER_WAY)
    return f'<div class="said user">{images}{question}</div><div class="said model"><p>{escape(answer)}</p></div>'


def name_title(name: str) -> str:
    """Return what a side is called as a title above its column."""
    return f"<h2>{escape(name)}</h2>"


def note_line(words: str) -> str:
    """Return a note as HTML; nothing for nothing."""
    return f'<p class="note" role="status">{escape(words)}</p>' if words else ""


def error_line(error: MMTuneError) -> str:
    """Return what went wrong as HTML."""
    return f'<p class="note error" role="alert">{escape(str(error))}</p>'


def name_of(talk: Talk, key: str, language: str) -> str:
    """Return what the page calls a side in a sentence."""
    return talk.sides[key].name or text("base", language)


def notes_at_end(talk: Talk, keys: Sequence[str], language: str, *, was_retried: bool) -> list[str]:
    """Return what there is to say when an answer is over: that it was stopped, cut off, or not read from its start."""
    sessions = {key: talk.sessions[key] for key in keys}
    notes = []
    if talk.job is not None and talk.job.was_cancelled:
        notes.append(text("stopped", language))
    elif any(session.ending == "length" for session in sessions.values()):
        notes.append(text("cut_off", language))
    elif was_retried and not any(session.decoding.temperature for session in sessions.values()):
        notes.append(text("greedy", language))
    for key, session in sessions.items():
        if session.num_unread:
            count = len(session.exchanges) - session.num_unread
            notes.append(text("unread", language).format(name=name_of(talk, key, language), count=count))
    first = talk.sessions[keys[0]]
    if first.context is not None:
        notes.append(text("used", language).format(used=len(first.ids), context=first.context))
    return notes
