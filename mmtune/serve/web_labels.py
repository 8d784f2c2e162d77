"""Labels that change with the language: each component says once which of its properties say what."""

from collections.abc import Callable
from typing import Any, TypeVar

import gradio as gr

from mmtune.serve.web_text import text

Said = Callable[[str], str]
"""Language -> text."""
Part = TypeVar("Part")


def say(key: str) -> Said:
    """Return what says a text of `web_text.py`."""
    return lambda language: text(key, language)


class Labels:
    """What is to be written anew when the language changes.

    Args:
        language: of the page before a browser has said its own.
    """

    def __init__(self, language: str = "en"):
        self.language = language
        self._said: list[tuple[Any, dict[str, Said]]] = []

    def first(self, said: Said) -> str:
        """Return a text in the language that the page is built in."""
        return said(self.language)

    def add(self, component: Part, **said: Said) -> Part:
        """Let properties of a component follow the language, and return it."""
        self._said.append((component, said))
        return component

    @property
    def components(self) -> list[Any]:
        """What `updates` is for, in its order."""
        return [component for component, _ in self._said]

    def updates(self, language: str) -> list[Any]:
        """Return an update for each of `components`."""
        return [_update({name: one(language) for name, one in said.items()}) for _, said in self._said]


def _update(values: dict[str, Any]) -> Any:
    return gr.update(**values)
