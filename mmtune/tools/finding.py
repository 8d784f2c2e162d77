"""From a name in `--tools` to the tool: those of the package, entry points of others, and functions by module."""

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from pathlib import Path

from mmtune.errors import ConfigError
from mmtune.lookup import lookup
from mmtune.tools.calculator import calculator
from mmtune.tools.clock import clock
from mmtune.tools.documents import look_up
from mmtune.tools.tool import Tool, make_tool

GROUP = "mmtune.tools"
"""The entry points by which a package brings tools of its own."""


def _calculator(spec: str, setting: str) -> Tool:
    return make_tool(calculator, spec)


def _clock(spec: str, setting: str) -> Tool:
    return make_tool(clock, spec)


def _documents(spec: str, setting: str) -> Tool:
    folder = Path(setting)
    if not setting or not folder.is_dir():
        message = f"no such folder (resolved to {folder.resolve()})." if setting else "names no folder."
        raise ConfigError(f"--tools {spec}", f"{message} Write documents:FOLDER.")

    def documents(query: str) -> str:
        """Look words up in a folder of documents."""
        return look_up(folder, query)

    return make_tool(documents, spec)


BUILT_IN: dict[str, Callable[[str, str], Tool]] = {
    "calculator": _calculator,
    "clock": _clock,
    "documents": _documents,
}
"""Name -> what makes the tool of its whole text in `--tools` and of what stands behind its colon."""


def find_tools(texts: Sequence[str]) -> list[Tool]:
    """Return the tools that `--tools` names, each text a list with commas.

    Raises:
        ConfigError: there is no such tool, or two have one name.
    """
    tools: dict[str, Tool] = {}
    for spec in (spec.strip() for text in texts for spec in text.split(",")):
        tool = find_tool(spec)
        if tool.name in tools:
            raise ConfigError(f"--tools {spec}", f"there are two tools named '{tool.name}'. Name one of them.")
        tools[tool.name] = tool
    return list(tools.values())


def find_tool(spec: str) -> Tool:
    """Return the tool of a text such as `clock`, `documents:notes` or `my_module:my_function`.

    Raises:
        ConfigError: there is none, it cannot be imported, or its signature has no types.
    """
    name, colon, setting = spec.partition(":")
    if name in BUILT_IN and (name == "documents" or not colon):
        return BUILT_IN[name](spec, setting)
    if colon:
        return make_tool(_imported(spec, name, setting), spec)
    others = {each.name: each for each in entry_points(group=GROUP)}
    found = lookup({**others, **dict.fromkeys(BUILT_IN)}, spec, "--tools")
    assert found is not None
    return make_tool(_imported(spec, found.module, found.attr), spec, found.name)


def _imported(spec: str, module: str, function: str) -> Callable[..., object]:
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        return vars(importlib.import_module(module))[function]
    except KeyError:
        raise ConfigError(f"--tools {spec}", f"module {module} has no '{function}'. Mend the name.") from None
    except Exception as error:  # whatever the user's module does when it is imported
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ConfigError(f"--tools {spec}", f"cannot be imported ({reason:.200}). Mend the module.") from None
