"""Runs calls of tools, each in a process of its own that is ended when it takes too long, and cuts what they return."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from mmtune.tools.tool import Tool


@dataclass(frozen=True)
class Limits:
    """What tools may use.

    Attributes:
        num_calls: calls for one question.
        seconds: of a call; then its process is killed.
        num_bytes: of a result; what is more is cut.
    """

    num_calls: int = 5
    seconds: float = 10.0
    num_bytes: int = 4096


def run_call(tools: Sequence[Tool], text: str, arguments_key: str, limits: Limits) -> str:
    """Return what a call gives, or why it gives nothing, as a text for the model. Nothing is raised.

    Args:
        tools: that may be called.
        text: of the call, as the model wrote it: a JSON object with a name and arguments.
        arguments_key: under which the arguments stand.
        limits: of the call.
    """
    try:
        call = json.loads(text)
    except (ValueError, RecursionError):
        call = None
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        return f"error: a call is a JSON object with 'name' and '{arguments_key}'."
    tool = next((tool for tool in tools if tool.name == call["name"]), None)
    if tool is None:
        return f"error: there is no tool {call['name']!r:.60}. There are {', '.join(each.name for each in tools)}."
    arguments = call.get(arguments_key) or {}
    if not isinstance(arguments, dict):
        return "error: arguments are a JSON object, name by name."
    if problem := tool.wrong(arguments):
        return f"error: {problem}"
    return _run(tool, arguments, limits)


def _run(tool: Tool, arguments: dict[str, Any], limits: Limits) -> str:
    given = {"spec": tool.spec, "arguments": arguments, "max_bytes": limits.num_bytes}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "mmtune.tools.child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        start_new_session=True,  # so that it can be ended with all that it started, and Ctrl-C is ours alone
    )
    try:
        written, _ = process.communicate(json.dumps(given).encode(), timeout=limits.seconds)
    except subprocess.TimeoutExpired:
        return f"error: {tool.name} took longer than {limits.seconds:g} seconds and was stopped."
    finally:
        _end(process)
    try:
        result = json.loads(written)
    except ValueError:
        return f"error: {tool.name} ended without a result (exit code {process.returncode})."
    text = result["text"]
    if result["num_bytes"] > limits.num_bytes:
        text += f"\n[cut: the first {limits.num_bytes} of {result['num_bytes']} bytes]"
    return f"error: {text}" if result["is_error"] else text


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and all that it started."""
    if sys.platform == "win32":
        process.kill()
    else:
        with suppress(ProcessLookupError):  # it has ended by itself
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
