"""Tools in OpenAI messages and ShareGPT: those on offer, calls and results. Each function raises `ValueError`.

Calls are read as JSON; nothing in a record is ever evaluated. MOSS and MS-Agent are in `formats_agents.py`.
"""

import json
from typing import Any

from mmtune.conversation import Message, ToolCall
from mmtune.data.dialogue import kind_of

CALL_ROLES = ("function_call", "tool_call")
RESULT_ROLES = ("observation", "function_response", "tool", "tool_response", "function")


def offered(record: dict[str, Any]) -> tuple[Message, ...]:
    """Return the turn with the tools that a record offers; none where it offers none.

    `tools` is a list, or the JSON text of one, of `{"name": ..., "description": ..., "parameters": {...}}`, each
    alone or as OpenAI wraps it: `{"type": "function", "function": {...}}`.
    """
    tools = record.get("tools")
    if isinstance(tools, str) and tools.strip():
        tools = _json(tools, "'tools'")
    if not tools:
        return ()
    if not isinstance(tools, list):
        raise ValueError(f"'tools' must be a list of tools (got {kind_of(tools)}).")
    return (offer([_unwrapped(tool, number) for number, tool in enumerate(tools, 1)]),)


def offer(tools: list[dict[str, Any]]) -> Message:
    """Return the turn that offers tools."""
    return Message("tools", (json.dumps(tools, ensure_ascii=False),))


def with_tools(messages: tuple[Message, ...], record: dict[str, Any]) -> tuple[Message, ...]:
    """Return turns with the tools of their record behind the system message."""
    start = 1 if messages and messages[0].role == "system" else 0
    return (*messages[:start], *offered(record), *messages[start:])


def _unwrapped(tool: Any, number: int) -> dict[str, Any]:
    if isinstance(tool, dict) and isinstance(tool.get("function"), dict):
        tool = tool["function"]
    if not isinstance(tool, dict) or not isinstance(tool.get("name"), str):
        raise ValueError(f"'tools': tool {number} must be an object with a 'name' (got {kind_of(tool)}).")
    return tool


def calls_of_turn(turn: dict[str, Any], number: int) -> tuple[ToolCall, ...]:
    """Return the calls of an assistant's turn, from `tool_calls` or `function_call`."""
    calls = turn.get("tool_calls")
    if calls is None or calls == []:
        calls = [turn["function_call"]] if turn.get("function_call") else []
    if not isinstance(calls, list):
        raise ValueError(f"turn {number}: 'tool_calls' must be a list of calls (got {kind_of(calls)}).")
    return tuple(_call(call, number) for call in calls)


def calls_of_text(text: Any, number: int) -> tuple[ToolCall, ...]:
    """Return the calls of a turn that is nothing else, as ShareGPT's `function_call` writes them: one, or a list."""
    calls = _json(text, f"turn {number}: the call") if isinstance(text, str) else text
    return tuple(_call(call, number) for call in (calls if isinstance(calls, list) else [calls]))


def _call(call: Any, number: int) -> ToolCall:
    if isinstance(call, dict) and isinstance(call.get("function"), dict):
        call = call["function"]
    if not isinstance(call, dict) or not isinstance(call.get("name"), str) or not call["name"]:
        raise ValueError(f"turn {number}: a call must be an object with 'name' and 'arguments' (got {kind_of(call)}).")
    arguments = call.get("arguments", call.get("parameters"))
    if isinstance(arguments, str) and arguments.strip():
        arguments = _json(arguments, f"turn {number}: the arguments of {call['name']:.40}")
    return tool_call(call["name"], arguments or {}, number)


def tool_call(name: str, arguments: Any, number: int) -> ToolCall:
    """Return a call, its arguments checked."""
    if not isinstance(arguments, dict):
        got = kind_of(arguments)
        raise ValueError(f"turn {number}: the arguments of {name:.40} must be an object, name by name (got {got}).")
    return ToolCall(name, json.dumps(arguments, ensure_ascii=False))


def result_text(content: Any, number: int) -> str:
    """Return what a tool returned as text: a text as it is, parts of text joined, anything else as JSON."""
    if isinstance(content, str):
        return content
    if content is None:
        raise ValueError(f"turn {number}: the result is missing. Give it a text.")
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        return "".join(str(part.get("text", "")) for part in content)
    return json.dumps(content, ensure_ascii=False)


def add_result(messages: list[Message], text: str) -> None:
    """Add a result; several of the calls of one answer are one turn, line by line."""
    if messages and messages[-1].role == "result":
        before = messages.pop()
        text = f"{before.text}\n{text}"
    messages.append(Message("result", (text,)))


def _json(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"{what} must be JSON (got {text.strip()!r:.60}). Mend it, or drop the record.") from None
