"""The files that list the bad records of a run's data in its folder. Whether they are an error: `require_good`."""

from pathlib import Path

from mmtune.data.check import DataReport
from mmtune.data.record import to_line
from mmtune.processes import rank

TRAINING_PROBLEMS = "data_problems.jsonl"
VALIDATION_PROBLEMS = "validation_problems.jsonl"
PROBLEM_FILES = (TRAINING_PROBLEMS, VALIDATION_PROBLEMS)
"""What a run leaves whose data is bad."""


def list_problems(path: Path, report: DataReport) -> None:
    """Write one JSON object a line: `file`, `line`, `reason`, `mend`. Without bad records there is no file.

    Of several processes the first one writes.
    """
    if rank() != 0:
        return
    path.unlink(missing_ok=True)
    if report.problems:
        path.write_text("".join(to_line(vars(finding)) + "\n" for finding in report.problems), encoding="utf-8")
