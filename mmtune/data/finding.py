"""Something wrong or odd with a record: what checks, reports and run folders list. Finds nothing itself."""

from dataclasses import dataclass
from pathlib import Path

DEFAULT_MEND = "Mend the record, or leave it out."


@dataclass(frozen=True)
class Finding:
    """Something wrong or odd with a record.

    Attributes:
        file: the data file.
        line: of the record, from 1; 0 where it is about the whole file.
        reason: what is wrong.
        mend: what to do.
    """

    file: str
    line: int
    reason: str
    mend: str

    @classmethod
    def of(cls, file: Path | str, line: int, message: str) -> "Finding":
        """Split a message: its first sentence is the reason, the rest the mend; some reasons say it all."""
        reason, _, mend = message.partition(". ")
        return cls(str(file), line, reason.rstrip(".") + ".", mend or DEFAULT_MEND)

    @property
    def place(self) -> str:
        """`file:line`."""
        return f"{self.file}:{self.line}" if self.line else self.file

    @property
    def message(self) -> str:
        """Reason and mend."""
        return f"{self.reason} {self.mend}".strip()
