"""The process in which one call of a tool runs: reads the call from standard input, writes the result to its output.

What the tool itself prints goes nowhere. `running.py` starts this, waits, and ends it.
"""

import json
import os
import sys
from typing import Any

from mmtune.tools.finding import find_tool


def main() -> None:
    """Run the call."""
    call = json.load(sys.stdin)
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    try:
        text = _text(find_tool(call["spec"]).function(**call["arguments"]))
        is_error = False
    except (Exception, SystemExit) as error:  # whatever a tool raises is its answer
        text, is_error = f"{type(error).__name__}: {error}", True
    data = text.encode("utf-8", "replace")
    kept = data[: call["max_bytes"]].decode("utf-8", "ignore")
    json.dump({"text": kept, "num_bytes": len(data), "is_error": is_error}, output)
    output.flush()


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        return str(value)


if __name__ == "__main__":
    main()
