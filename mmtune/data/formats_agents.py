"""The formats of two sets of dialogues with tools: MOSS and MS-Agent. Each function raises `ValueError`.

Calls are parsed, never evaluated: as JSON, or as the syntax tree of Python literals.
"""

import ast
import json
import re
from typing import Any

from mmtune.conversation import Conversation, Message, ToolCall
from mmtune.data.dialogue import kind_of
from mmtune.data.formats_tools import offer, tool_call

MOSS_ARGUMENTS = {"Search": "query", "Calculate": "expression", "Solve": "equation", "Text2Image": "description"}
"""The name of the one argument of each of MOSS's tools."""

MOSS_API = re.compile(r"^- ([^:\n]+): enabled\. API: (\w+)\((\w*)\)", re.MULTILINE)
LONGEST_LITERAL = 200_000
THINK = "<|startofthink|>"
STEP = re.compile(
    r"<\|startofthink\|>(.*?)<\|endofthink\|>\s*<\|startofexec\|>(.*?)<\|endofexec\|>", re.DOTALL | re.IGNORECASE
)
FENCE = re.compile(r"^\s*```(?:JSON)?\s*|\s*```\s*$", re.IGNORECASE)
MSAGENT_MARKS = re.compile(r"<\|(?:start|end)of(?:think|exec)\|>", re.IGNORECASE)
OFFER_BEGINS = ("当前对话可以使用的插件信息如下", "当前对话可以使用的插件")


def moss(record: dict[str, Any]) -> Conversation:
    r"""MOSS: `{"meta_instruction": "You are ...", "chat": {"turn_1": {"Human": "<|Human|>: Hi<eoh>\n", ...}}}`.

    Inner thoughts stand before the call of their turn; those of a turn without a call are left out.
    """
    chat, meta = record.get("chat"), record.get("meta_instruction") or ""
    if not isinstance(chat, dict) or not isinstance(meta, str):
        raise ValueError(f"'chat' must be an object with turn_1 and so on (got {kind_of(chat)}).")
    tools = [_moss_tool(*found) for found in MOSS_API.findall(meta)]
    messages = [Message("system", (meta.strip(),))] if meta.strip() else []
    messages += [offer(tools)] if tools else []
    for number in range(1, len(chat) + 1):
        turn = chat.get(f"turn_{number}")
        if not isinstance(turn, dict):
            raise ValueError(f"'chat' has no turn_{number} (got {', '.join(map(str, chat)):.100}).")
        messages += _moss_turn(turn, number)
    return Conversation(tuple(messages))


def _moss_tool(title: str, name: str, argument: str) -> dict[str, Any]:
    argument = argument or MOSS_ARGUMENTS.get(name, "input")
    schema = {"type": "object", "properties": {argument: {"type": "string"}}, "required": [argument]}
    return {"name": name, "description": title, "parameters": schema}


def _moss_turn(turn: dict[str, Any], number: int) -> list[Message]:
    said = _moss_text(turn, "Human", "<|Human|>:", "<eoh>", number)
    answer = _moss_text(turn, "MOSS", "<|MOSS|>:", "<eom>", number)
    commands = _moss_text(turn, "Commands", "<|Commands|>:", "<eoc>", number)
    messages = [Message("user", (said,))]
    if commands:
        thoughts = _moss_text(turn, "Inner Thoughts", "<|Inner Thoughts|>:", "<eot>", number)
        result = _moss_text(turn, "Tool Responses", "<|Results|>:", "<eor>", number)
        messages += [
            Message("assistant", (thoughts,) if thoughts else (), calls=_commands(commands, number)),
            Message("result", (result,)),
        ]
    return [*messages, Message("assistant", (answer,))]


def _moss_text(turn: dict[str, Any], key: str, start: str, end: str, number: int) -> str:
    """Return what stands between the marks of a field; `None` there is nothing."""
    text = turn.get(key, "")
    if not isinstance(text, str):
        raise ValueError(f"turn_{number}: '{key}' must be a text (got {kind_of(text)}).")
    text = text.strip().removeprefix(start).strip().removesuffix(end).strip()
    return "" if text == "None" and key not in ("Human", "MOSS") else text


def _commands(text: str, number: int) -> tuple[ToolCall, ...]:
    """Return the calls of `Search("a"), Calculate("1 + 2")`: names and literals, read from their syntax tree."""
    whole = re.fullmatch(r"(\w+)\((['\"])(.*)\2\)", text, re.DOTALL)
    try:
        tree = ast.parse(text[:LONGEST_LITERAL].strip(), mode="eval").body
        nodes = tree.elts if isinstance(tree, ast.Tuple) else [tree]
        return tuple(_command(node, number) for node in nodes)
    except (SyntaxError, RecursionError, MemoryError):
        if whole and whole[1] in MOSS_ARGUMENTS:  # one text with line ends or quotation marks of its own
            return (tool_call(whole[1], {MOSS_ARGUMENTS[whole[1]]: whole[3]}, number),)
        raise ValueError(f"turn_{number}: 'Commands' must be calls such as Search(\"a\") (got {text!r:.60}).") from None


def _command(node: ast.expr, number: int) -> ToolCall:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or len(node.args) > 1:
        raise SyntaxError
    name = node.func.id
    try:
        values = {MOSS_ARGUMENTS.get(name, "input"): ast.literal_eval(each) for each in node.args}
        values |= {str(each.arg): ast.literal_eval(each.value) for each in node.keywords}
        return tool_call(name, values, number)
    except (ValueError, TypeError):
        raise SyntaxError from None


def is_msagent(turns: Any) -> bool:
    """Whether the `conversations` of a record are those of MS-Agent: a text, or with its marks of calls."""
    if isinstance(turns, str):
        return turns.lstrip().startswith("[")
    if not isinstance(turns, list):
        return False
    values = (turn.get("value") for turn in turns if isinstance(turn, dict) and turn.get("from") == "assistant")
    return any(isinstance(value, str) and THINK in value for value in values)


def msagent(record: dict[str, Any]) -> Conversation:
    """MS-Agent: `{"conversations": [{"from": "user", "value": "..."}, {"from": "assistant", "value": "..."}]}`.

    `conversations` may be the text of that list. An answer holds its calls and results between marks:
    `<|startofthink|>` a JSON object with `api_name` and `parameters` `<|endofthink|>`, `<|startofexec|>` the result
    `<|endofexec|>`. The list of tools in the system message becomes the tools on offer.
    """
    turns = record.get("conversations")
    turns = _literal(turns) if isinstance(turns, str) else turns
    if not isinstance(turns, list):
        raise ValueError(f"'conversations' must be a list of turns (got {kind_of(turns)}).")
    messages: list[Message] = []
    for number, turn in enumerate(turns, 1):
        role, value = (turn.get("from"), turn.get("value")) if isinstance(turn, dict) else (None, None)
        if not isinstance(value, str):
            raise ValueError(f"turn {number} must be an object with 'from' and a text as 'value'.")
        if role == "system":
            messages += _msagent_system(value)
        elif role == "user":
            messages.append(Message("user", (value,)))
        elif role == "assistant":
            messages += _msagent_answer(value, number)
        else:
            raise ValueError(f"turn {number} has the unknown role {role!r:.40}. Roles are system, user, assistant.")
    return Conversation(tuple(messages))


def _literal(text: str) -> Any:
    """Return the value of a text of JSON, or of Python's literals; no name and no call in it means anything."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text.strip()[:LONGEST_LITERAL])
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        raise ValueError(f"'conversations' is a text that is no list (got {text!r:.60}). Mend it.") from None


def _msagent_system(text: str) -> list[Message]:
    tools = _msagent_tools(text)
    if tools:
        begins = [at for mark in OFFER_BEGINS if (at := text.find(mark)) >= 0]
        text = text[: min(begins, default=text.find("{"))]
    return [*([Message("system", (text.strip(),))] if text.strip() else []), *([offer(tools)] if tools else [])]


def _msagent_tools(text: str) -> list[dict[str, Any]]:
    """Return the tools whose JSON objects stand in a system message, each name once."""
    tools, decoder, at = {}, json.JSONDecoder(), text.find("{")
    while at >= 0:
        try:
            found, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            found, end = {}, at + 1
        name = found.get("plugin_name") or found.get("name")
        if isinstance(name, str):
            tools[name] = _msagent_tool(name, found.get("plugin_schema_for_model") or found)
        at = text.find("{", end)
    return list(tools.values())


def _msagent_tool(name: str, schema: Any) -> dict[str, Any]:
    schema = schema if isinstance(schema, dict) else {}
    paths = schema.get("paths")
    path = paths[0] if isinstance(paths, list) and paths and isinstance(paths[0], dict) else {}
    known = [each for each in path.get("parameters") or [] if isinstance(each, dict) and "name" in each]
    properties = {str(each["name"]): {"description": str(each.get("description", ""))} for each in known}
    required = [str(each["name"]) for each in known if str(each.get("required")) == "True"]
    parameters = {"type": "object", "properties": properties, "required": required}
    return {"name": name, "description": str(schema.get("description", "")), "parameters": parameters}


def _msagent_answer(text: str, number: int) -> list[Message]:
    pieces = STEP.split(text)
    messages: list[Message] = []
    for said, call, result in zip(pieces[:-1:3], pieces[1::3], pieces[2::3], strict=True):
        content = (said.strip(),) if said.strip() else ()
        messages.append(Message("assistant", content, calls=(_msagent_call(call, number),)))
        messages.append(Message("result", (FENCE.sub("", result),)))
    last = pieces[-1].strip()
    if MSAGENT_MARKS.search("".join(pieces[::3])):
        raise ValueError(f"turn {number} has a call without its result, or a mark too many. Drop the record.")
    if not last:
        raise ValueError(f"turn {number}: the answer behind the last result is empty. Drop the record.")
    return [*messages, Message("assistant", (last,))]


def _msagent_call(text: str, number: int) -> ToolCall:
    text = FENCE.sub("", text)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"turn {number}: the call must be a JSON object (got {text!r:.60}).") from None
    if not isinstance(found, dict) or not isinstance(found.get("api_name"), str):
        raise ValueError(f"turn {number}: the call has no 'api_name' (got {text!r:.60}).")
    return tool_call(found["api_name"], found.get("parameters") or {}, number)
