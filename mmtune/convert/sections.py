"""Sections of a foreign config from which values are taken one by one: what nobody takes is reported, not lost."""

from typing import Any

from mmtune.python_config import Reference, Unread

EXPLANATIONS = {
    "pad_image_to_square": "images are always padded to squares",
    "sequence_parallel_size": "one device holds whole samples",
    "strategy": "train.deepspeed splits a model over several devices",
    "resume": "a run continues by an option: --resume",
    "load_from": "set model.init_from to start from weights",
    "max_position_embeddings": "positions stay as the model has them",
    "offline_processed_text_folder": "name the data file as data.train[0].path",
}
"""Keys that are often met and never carried over -> why."""


class Section:
    """A dictionary of a foreign config.

    Args:
        values: taken from it as they are asked for.
        path: where it stands, such as `model.llm`; empty for the whole file.
        notes: shared by all sections of a file; grows by what cannot be carried over.
    """

    def __init__(self, values: dict[str, Any], path: str, notes: list[str]):
        self.values, self.path, self.notes = dict(values), path, notes

    def place(self, key: str) -> str:
        """Return the whole name of a key."""
        return f"{self.path}.{key}" if self.path else key

    def take(self, key: str, kinds: type | tuple[type, ...], default: Any = None) -> Any:
        """Take a value away and return it; one that is unset, None or of another type gives the default."""
        value = self.values.pop(key, None)
        if value is None:
            return default
        if isinstance(value, kinds) and (not isinstance(value, bool) or kinds is bool):
            return value
        self.notes.append(f"{self.place(key)}: {shown(value)}{why(value)}")
        return default

    def section(self, key: str) -> "Section":
        """Take a dictionary away and return it as a section; an empty one where there is none."""
        value = self.values.pop(key, None)
        if value is not None and not isinstance(value, dict):
            self.notes.append(f"{self.place(key)}: {shown(value)}{why(value)}")
        return Section(value if isinstance(value, dict) else {}, self.place(key), self.notes)

    def sections(self, key: str) -> list["Section"]:
        """Take a list of dictionaries away; other entries are reported."""
        entries = self.take(key, (list, tuple), [])
        for number, entry in enumerate(entries):
            if not isinstance(entry, dict):
                self.notes.append(f"{self.place(key)}[{number}]: {shown(entry)}{why(entry)}")
        numbered = ((f"{self.place(key)}[{number}]", entry) for number, entry in enumerate(entries))
        return [Section(entry, place, self.notes) for place, entry in numbered if isinstance(entry, dict)]

    def name(self, key: str = "type") -> str:
        """Take the name of a class or function away: its last part; empty where there is none."""
        value = self.values.pop(key, None)
        if isinstance(value, str):  # as mmengine writes it: 'torch.optim.AdamW'
            value = Reference(value)
        if isinstance(value, Reference):
            return value.name
        if value is not None:
            self.notes.append(f"{self.place(key)}: {shown(value)}{why(value)}")
        return ""

    def drop(self, *keys: str) -> None:
        """Take values away that change nothing here."""
        for key in keys:
            self.values.pop(key, None)

    def drop_if(self, **usual: Any) -> None:
        """Take values away where they are the usual ones; others stay, to be reported."""
        for key, value in usual.items():
            if key in self.values and self.values[key] == value:
                del self.values[key]

    def report(self) -> None:
        """Note what was not taken; a None says nothing."""
        for key, value in self.values.items():
            if value is not None and value != {}:
                self.notes.append(f"{self.place(key)}: {shown(value)}{why(value, key)}")


def why(value: Any, key: str = "") -> str:
    """Say why a value is not carried over, where that is not plain."""
    if isinstance(value, Unread):
        return f" (line {value.line}: only running the file would tell)"
    return f"; {EXPLANATIONS[key]}" if key in EXPLANATIONS else ""


def shown(value: Any) -> str:
    """Return a value as one short text."""
    match value:
        case Unread(text=text):
            whole = text
        case Reference():
            whole = value.name
        case dict():
            whole = "{" + ", ".join(f"{key}: {shown(entry)}" for key, entry in value.items()) + "}"
        case list() | tuple():
            whole = "[" + ", ".join(map(shown, value)) + "]"
        case _:
            whole = " ".join(str(value).split())
    return whole if len(whole) <= 200 else f"{whole[:197]}..."
