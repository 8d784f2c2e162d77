"""What a look at one thing gives. How things are looked at is in the other files."""

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "note", "missing", "broken"]
"""`broken`: the main path needs it and it does not work; `missing`: a feature of choice; `note`: good to know."""


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Args:
        group: which part of the report it belongs to, a key of `report.TITLES`.
        name: of what was looked at, unique in its group.
        state: how it is.
        text: what was found, one line.
        mend: the command or the sentence that mends it.
    """

    group: str
    name: str
    state: State
    text: str
    mend: str | None = None
