"""Answers on the disk: a JSON line each, appended as they come, so that an evaluation can be cut off and go on."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mmtune.durable import write_errors_named, written_beside
from mmtune.errors import CheckpointError, ConfigError
from mmtune.evaluate.benchmarks.report import REPORT_FILE
from mmtune.run_folder import read_json, write_json

INPUTS_FILE = "inputs.json"
ANSWERS_FILE = "answers.jsonl"
PARTS = "answers-*.jsonl"
"""The answers of other processes than the first one."""


class AnswerStore:
    """The answers of one evaluation, in its folder; each process appends to a file of its own.

    Args:
        folder: of the evaluation.
        rank: number of this process among all.

    Attributes:
        answers: the name of a question -> its answer, of all files when they were last read.
    """

    def __init__(self, folder: Path, rank: int = 0):
        self.folder, self.rank = folder, rank
        self.answers: dict[str, Any] = {}

    def prepare(self, inputs: dict[str, Any], *, overwrite: bool) -> None:
        """Make the folder ready; the first process alone does so.

        Args:
            inputs: all that decides what the answers are.
            overwrite: drop the answers and the report that are there.

        Raises:
            ConfigError: the folder holds answers of other inputs, or cannot be written to.
        """
        with write_errors_named(self.folder, mend="Name another folder."):
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / INPUTS_FILE
            if overwrite:
                for file in (*self._files(), self.folder / REPORT_FILE, path):
                    file.unlink(missing_ok=True)
            if not path.exists():
                with written_beside(path) as beside:
                    write_json(beside, inputs)
                return
        before = read_json(path)
        changed = [key for key in inputs if before.get(key) != inputs[key]]
        if changed:
            shown = ", ".join(f"{key} ({_short(before.get(key))}, now {_short(inputs[key])})" for key in changed)
            message = f"holds answers of another {shown}. Name another --output, or start anew with --overwrite."
            raise ConfigError(self.folder, message)

    def read(self) -> None:
        """Read all files; a line that was cut off in the middle is dropped from this process's own file."""
        own = self._own()
        self.answers = {}
        for path in self._files():
            content = path.read_bytes()
            whole = content[: content.rfind(b"\n") + 1]
            if path == own and len(whole) < len(content):
                os.truncate(path, len(whole))
            for number, line in enumerate(whole.splitlines(), 1):
                try:
                    entry = json.loads(line)
                    self.answers[entry["id"]] = entry["answer"]
                except (ValueError, KeyError, TypeError):
                    message = "is no answer. Delete the line, or start anew with --overwrite."
                    raise CheckpointError(f"{path}:{number}", message) from None

    def append(self, entries: Iterable[dict[str, Any]]) -> None:
        """Add answers to this process's own file; they are on the disk when this returns."""
        lines = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)
        with self._own().open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())

    def rewrite(self, entries: Iterable[dict[str, Any]]) -> None:
        """Write all answers to one file in their order, and remove the others."""
        with written_beside(self.folder / ANSWERS_FILE) as beside, beside.open("w", encoding="utf-8") as file:
            for entry in entries:
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        for path in self.folder.glob(PARTS):
            path.unlink()

    def _own(self) -> Path:
        return self.folder / (f"answers-{self.rank}.jsonl" if self.rank else ANSWERS_FILE)

    def _files(self) -> list[Path]:
        first = self.folder / ANSWERS_FILE
        return [*([first] if first.exists() else []), *sorted(self.folder.glob(PARTS))]


def _short(value: Any) -> str:
    return value[:12] if isinstance(value, str) and len(value) == 64 else str(value)
