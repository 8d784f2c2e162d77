"""A tool as a model is told of it: a Python function, its name, and a JSON schema made of its typed signature."""

import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_type_hints

from mmtune.errors import ConfigError

TYPES: dict[Any, str] = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    list: "array",
    dict: "object",
    list[str]: "array",
}
"""Type of a parameter -> its word in JSON schema."""


@dataclass(frozen=True)
class Tool:
    """A function that a model may call.

    Attributes:
        name: by which it is called.
        spec: what names it in `--tools`, from which another process finds it again.
        function: takes its arguments by name and returns a text, or what JSON can write.
        schema: `{"name": ..., "description": ..., "parameters": {...}}`.
    """

    name: str
    spec: str
    function: Callable[..., Any]
    schema: dict[str, Any]

    def wrong(self, arguments: dict[str, Any]) -> str:
        """Return what is wrong with the arguments of a call, as a sentence; empty where nothing is."""
        parameters = self.schema["parameters"]
        known = parameters["properties"]
        for name in parameters["required"]:
            if name not in arguments:
                return f"{self.name} needs '{name}'."
        for name, value in arguments.items():
            if name not in known:
                return f"{self.name} takes no '{name}'. It takes {', '.join(known) or 'nothing'}."
            wanted = known[name]["type"]
            if not _is_of(value, wanted):
                return f"{self.name} takes '{name}' as {wanted} (got {json.dumps(value, ensure_ascii=False):.60})."
        return ""


def _is_of(value: Any, wanted: str) -> bool:
    if isinstance(value, bool):
        return wanted == "boolean"
    if wanted == "number":
        return isinstance(value, int | float)
    return any(isinstance(value, kind) for kind, word in TYPES.items() if word == wanted and isinstance(kind, type))


def make_tool(function: Callable[..., Any], spec: str, name: str | None = None) -> Tool:
    """Return the tool of a function.

    Args:
        function: its parameters have types of `TYPES`; the first paragraph of its docstring describes it.
        spec: what names it in `--tools`.
        name: by which it is called; None: the function's own.

    Raises:
        ConfigError: a parameter has no type, or one that JSON schema has no word for.
    """
    place = f"--tools {spec}"
    if not callable(function):
        raise ConfigError(place, f"is no function (got {type(function).__name__}). Name one as module:function.")
    hints, properties, required = get_type_hints(function), {}, []
    for parameter in inspect.signature(function).parameters.values():
        hint = hints.get(parameter.name)
        if hint not in TYPES or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            allowed = "str, int, float, bool, list, dict"
            raise ConfigError(place, f"its parameter '{parameter.name}' needs a type: {allowed}. Write it, or drop it.")
        properties[parameter.name] = {"type": TYPES[hint]}
        if parameter.default is parameter.empty:
            required.append(parameter.name)
    description = " ".join((inspect.getdoc(function) or "").partition("\n\n")[0].split())
    parameters = {"type": "object", "properties": properties, "required": required}
    called = name or function.__name__
    return Tool(called, spec, function, {"name": called, "description": description, "parameters": parameters})
