"""The dialogue of one browser tab: a `ChatSession` for each side, asked through the worker, shown turn by turn.

No Gradio here: what the page shows is made of the values that this file returns.
"""

import json
import secrets
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from mmtune.chat.exchange import Exchange
from mmtune.chat.generate import Decoding
from mmtune.chat.params import changed_params
from mmtune.chat.saving import save_dialogue
from mmtune.chat.session import ChatSession, Tell
from mmtune.conversation import Message
from mmtune.errors import ConfigError
from mmtune.serve.job import Job
from mmtune.serve.uploads import UploadLimits
from mmtune.serve.web_models import Side
from mmtune.serve.web_pictures import Pictures
from mmtune.serve.web_turns import Piece, Turn, question_text, was_asked
from mmtune.serve.worker import Worker

MOST_NEW_TOKENS = 4096


class Talk:
    """What one browser tab said and heard.

    Args:
        sides: who answers; all of them share the worker.
        worker: in whose thread the models are.
        files: the folder of uploads.
        limits: of uploads.
        decoding: how answers are chosen, to begin with.
        context: see `ChatSession`.

    Attributes:
        sessions: by key of the side.
        job: the answer under way, or the last one.
    """

    def __init__(
        self,
        sides: Sequence[Side],
        worker: Worker,
        files: Path,
        limits: UploadLimits,
        decoding: Decoding,
        context: int | None = None,
    ):
        self.sides = {side.key: side for side in sides}
        self.worker, self.files = worker, files
        self.context = context
        self.sessions = {side.key: ChatSession(side.parts, decoding, side.system, context) for side in sides}
        self.client = secrets.token_hex(8)
        self.job: Job | None = None
        self._sees = sides[0].parts.transform is not None
        self._pictures = Pictures(files, limits)
        self._drawn = 0
        self._pending: Turn | None = None
        self._before: dict[str, list[Turn]] = {}
        self._partial: dict[str, str] = {}

    @property
    def is_answering(self) -> bool:
        """Whether an answer is under way."""
        return self.job is not None and not self.job.is_over

    def set_params(self, words: str) -> int:
        """Set how answers are chosen from now on, and return the seed.

        Args:
            words: `name=value` texts as `/params` takes them.

        Raises:
            ConfigError: a value is out of range.
        """
        first = next(iter(self.sessions.values()))
        decoding, seed = changed_params(first.decoding, 0, words)
        decoding = replace(decoding, max_new_tokens=min(decoding.max_new_tokens, MOST_NEW_TOKENS))
        for session in self.sessions.values():
            session.decoding = decoding
        return seed

    def set_system(self, system: str) -> bool:
        """Set the system message, and return whether that began a new dialogue."""
        wanted = system.strip() or None
        if all(session.system == wanted for session in self.sessions.values()):
            return False
        had_said = any(session.exchanges for session in self.sessions.values())
        for session in self.sessions.values():
            session.resume(wanted, [])
        self._forget()
        return had_said

    def ask(self, question: str, paths: Sequence[str], keys: Sequence[str], seed: int) -> Job:
        """Let sides answer a question, one after the other, and return the job; its pieces are `Piece`s.

        Args:
            question: a text.
            paths: of uploads, shown before it.
            keys: of the sides that are asked.
            seed: of draws.

        Raises:
            DataError: an image cannot be read, or is beyond a limit.
            ConfigError: the model cannot see, there is nothing to ask, or an answer is under way.
            Busy: too many wait.
        """
        self.require_rest()
        slots = self._pictures.take(paths, sees=self._sees)
        if not question.strip() and not slots:
            raise ConfigError("question", "it is empty. Ask something.")
        shown = Turn(question, self._pictures.shown(slots), None)
        return self._start(shown, keys, seed, lambda session, tell: session.ask(question, slots, tell))

    def retry(self, keys: Sequence[str], seed: int) -> Job:
        """Let sides answer the last question again, also one that was not asked it; as `ask`."""
        self.require_rest()
        last = self._last_question()

        def answer(session: ChatSession, tell: Tell) -> str:
            if was_asked(session, last):
                return session.retry(tell)
            return session.ask(question_text(last), last.image_slots, tell)

        shown = Turn(question_text(last), self._pictures.shown(last.image_slots), None)
        return self._start(shown, keys, seed, answer, replaced=last)

    def take(self, piece: Piece) -> None:
        """Let what the worker told be shown."""
        self._partial[piece.side] = self._partial.get(piece.side, "") + piece.text

    def settle(self) -> None:
        """Show what sessions hold, since the job is over."""
        self._pending = None
        self._before, self._partial = {}, {}

    def stop(self) -> None:
        """Stop the answer under way; what was said stays."""
        if self.job is not None:
            self.job.cancel()

    def undo(self) -> str:
        """Take the last question back on each side that was asked it, and return it.

        Raises:
            ConfigError: there is none, or an answer is under way.
        """
        self.require_rest()
        last = self._last_question()
        for session in self.sessions.values():
            if was_asked(session, last):
                session.undo()
        return question_text(last)

    def begin_anew(self) -> None:
        """Forget the dialogue; an answer under way is stopped, and what it still says is said to nobody."""
        self.stop()
        for key, session in self.sessions.items():
            self.sessions[key] = ChatSession(session.parts, session.decoding, session.system, self.context)
        self._forget()

    def turns(self, key: str) -> list[Turn]:
        """Return what a side was asked and answered, as it is at this moment."""
        if self._pending is not None and key in self._before:
            return [*self._before[key], replace(self._pending, answer=self._partial.get(key))]
        return [self._turn(self.sessions[key], exchange) for exchange in self.sessions[key].exchanges]

    def saved(self, key: str) -> str:
        """Return the dialogue of a side as the file that `/save` writes, with the images inside.

        Raises:
            ConfigError: nothing was said yet, or an answer is empty.
        """
        with tempfile.TemporaryDirectory(dir=self.files, prefix="saving-") as folder:
            path = Path(folder) / "dialogue.json"
            save_dialogue(self.sessions[key], path)
            return json.dumps(json.loads(path.read_text(encoding="utf-8")), ensure_ascii=False, indent=1) + "\n"

    def _start(
        self,
        shown: Turn,
        keys: Sequence[str],
        seed: int,
        answer: Callable[[ChatSession, Tell], str],
        replaced: Message | None = None,
    ) -> Job:
        self._drawn += 1
        draw, asked = seed + self._drawn, {key: self.sessions[key] for key in keys}

        def work(job: Job) -> None:
            for key, session in asked.items():
                job.tell(Piece(key, ""))
                self.sides[key].select()
                torch.manual_seed(draw)
                answer(session, lambda text, key=key: job.tell(Piece(key, text)))  # type: ignore[misc]

        before = {
            key: self.turns(key)[: -1 if was_asked(session, replaced) else None] for key, session in asked.items()
        }
        self.job = self.worker.submit(self.client, work)
        self._before, self._pending, self._partial = before, shown, {}
        return self.job

    def _last_question(self) -> Message:
        """The last question of the side that was asked most."""
        longest = max(self.sessions.values(), key=lambda session: len(session.exchanges))
        if not longest.exchanges:
            raise ConfigError("dialogue", "nothing was asked yet. Ask something.")
        return longest.exchanges[-1].question

    def _turn(self, session: ChatSession, exchange: Exchange) -> Turn:
        images = self._pictures.shown(exchange.question.image_slots)
        answers = [session.text(said) for said in exchange.said if isinstance(said, list)]
        return Turn(question_text(exchange.question), images, "\n".join(answers))

    def require_rest(self) -> None:
        """Check that no answer is under way.

        Raises:
            ConfigError: one is.
        """
        if self.is_answering:
            raise ConfigError("dialogue", "an answer is under way. Stop it first.")

    def _forget(self) -> None:
        self.settle()
        self._drawn = 0
        self._pictures = Pictures(self.files, self._pictures.limits)
