"""A dialogue that lines steer: questions, images for the next one, who answers. How it is shown is the screen's."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import torch

from mmtune.chat.session import ChatSession, Tell
from mmtune.chat.switching import UNLOADED, AdapterSwitch
from mmtune.conversation import Message
from mmtune.data.image_files import open_image
from mmtune.errors import ConfigError, MMTuneError
from mmtune.plain_text import shortened

SHOWN_CHARACTERS = 200  # of a call of a tool and of its result


class Screen(Protocol):
    """Where a dialogue is shown."""

    def note(self, text: str) -> None:
        """Show what is no answer."""

    def error(self, error: MMTuneError) -> None:
        """Show what went wrong, in one line."""

    def begin(self) -> Tell | None:
        """Begin an answer; return what its pieces are told to, or None where it is shown as a whole."""

    def end(self, question: Message, answer: str) -> None:
        """End an answer that is whole."""


class Dialogue:
    """What lines and commands act on.

    Args:
        session: what was said.
        screen: where it is shown.
        switch: which run answers; None of a model that is no run.
        first_images: shown with the first question, also where the dialogue starts anew.
        seed: of draws.

    Attributes:
        waiting: images for the next question.
        is_over: whether the user left.
    """

    def __init__(
        self,
        session: ChatSession,
        screen: Screen,
        switch: AdapterSwitch | None = None,
        first_images: Sequence[str] = (),
        seed: int = 0,
    ):
        self.session, self.screen, self.switch = session, screen, switch
        self.first_images = self.waiting = tuple(first_images)
        self.is_over = False
        self.set_seed(seed)

    def set_seed(self, seed: int) -> None:
        """Let draws begin with a seed."""
        self.seed = seed
        torch.manual_seed(seed)

    def ask(self, text: str, images: Sequence[str] = ()) -> None:
        """Show the answer to a question about the images that wait and further ones."""
        shown = (*self.waiting, *images)
        self._answer(lambda tell: self.session.ask(text, shown, tell))

    def retry(self) -> None:
        """Show another answer to the last question."""
        session = self.session
        was_answered = bool(session.exchanges) and session.exchanges[-1].question is session.last_question
        self._answer(session.retry)
        if was_answered and not session.decoding.temperature:
            self.screen.note("temperature is 0, so the same model says the same. /params temperature=0.8 draws.")

    def begin_anew(self) -> None:
        """Forget the dialogue."""
        self.session.reset()
        self.waiting = self.first_images

    def add_images(self, images: Sequence[str], place: str) -> None:
        """Show images with the next question.

        Raises:
            ConfigError: the model cannot see.
            DataError: an image is missing or cannot be read.
        """
        if self.session.parts.transform is None:
            raise ConfigError(place, "this model was trained on text alone and cannot see. Ask without an image.")
        for image in images:
            open_image(image, place)
        self.waiting = (*self.waiting, *images)
        self.screen.note(f"with the next question: {', '.join(self.waiting)}")

    def select(self, name: str, place: str = "/adapter") -> None:
        """Let another run answer, one that is there or the folder of one, or the base model; the dialogue starts anew.

        Raises:
            MMTuneError: it cannot answer here.
        """
        switch = self.require_switch(place)
        is_known = name in (*switch.names, *switch.layers, *UNLOADED)
        switch.select(name if is_known or not Path(name).is_dir() else switch.add(name), place)
        self.begin_anew()
        now = "no adapter: the base model answers" if switch.active in UNLOADED else f"{switch.active} answers"
        self.screen.note(f"{now}; the dialogue starts anew")

    def require_switch(self, place: str) -> AdapterSwitch:
        """Return what switches among runs.

        Raises:
            ConfigError: this is no run.
        """
        if self.switch is None:
            raise ConfigError(place, "this model is no run and answers alone. Start the chat with a run folder.")
        return self.switch

    def _answer(self, make: Callable[[Tell | None], str]) -> None:
        num_unread = self.session.num_unread
        answer = make(self.screen.begin())
        self.waiting = ()
        self.screen.end(self.session.exchanges[-1].question, answer)
        self._tell_limits(num_unread)

    def _tell_limits(self, num_unread_before: int) -> None:
        session = self.session
        if session.num_unread > num_unread_before:
            num_read = len(session.exchanges) - session.num_unread
            full = f"the context of {session.context} tokens is full"
            self.screen.note(f"{full}: the model reads no more than the last {num_read} question(s)")
        if session.ending == "length":
            limit = session.decoding.max_new_tokens
            self.screen.note(f"the answer was cut off. /params max_new_tokens={2 * limit} allows longer ones.")


def call_printer(screen: Screen) -> Callable[[str, str], None]:
    """Return what shows a call of a tool and its result, each on a line."""

    def tell(call: str, result: str) -> None:
        for title, text in (("call", call), ("result", result)):
            screen.note(f"{title}: {shortened(text, SHOWN_CHARACTERS)}")

    return tell
