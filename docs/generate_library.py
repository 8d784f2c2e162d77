"""Writes docs/reference/library.md: the public names of mmtune with their signatures and docstrings.

Run `python docs/generate_library.py` after a change of one of these; a test compares the file with what this makes.
Signatures are read from the source, so that they are spelled as there with any version of Python.
"""

import ast
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import mmtune

TARGET = Path(__file__).parent / "reference" / "library.md"
NOTE = "Generated from the code by `docs/generate_library.py`; do not edit.\n"
SECTIONS = ("Args", "Attributes", "Raises", "Returns", "Yields", "Source")


def render() -> str:
    """Return the page of the public names with their signatures and docstrings."""
    parts = ["# The library\n", NOTE]
    parts.append(
        "The public names: `from mmtune import NAME`. Examples, in their order: [library.md](../library.md).\n"
    )
    source = inspect.getsource(mmtune)
    for line in source[source.index("MODULE_OF = {") : source.index('"""Public name')].splitlines():
        if title := re.fullmatch(r" +# (.*)", line):
            parts.append(f"## {title[1].capitalize()}\n")
        elif found := re.fullmatch(r' +"(\w+)": "([\w.]+)",', line):
            parts += _name(found[1], found[2])
    return "\n".join(parts)


def _name(name: str, module: str) -> Iterator[str]:
    """Yield what is said of a name: its signature, its docstring, and the same of a class's methods."""
    node = _node(module, name)
    yield f"### {name}\n"
    if isinstance(node, ast.ClassDef):
        yield f"```python\n{_made_by(node)}\n```\n\n{_sections(node)}\n"
        for method in node.body:
            if isinstance(method, ast.FunctionDef) and not method.name.startswith("_") and ast.get_docstring(method):
                text = _called(f"{name}.{method.name}", method, is_method=True)
                yield f"```python\n{text}\n```\n\n{_sections(method)}\n"
    elif isinstance(node, ast.FunctionDef):
        yield f"```python\n{_called(name, node, is_method=False)}\n```\n\n{_sections(node)}\n"
    else:
        value = getattr(importlib.import_module(module), name)
        yield f"```python\n{name} = {value!r}\n```\n\n{_value_doc(module, name)}\n"


def _node(module: str, name: str) -> ast.stmt | None:
    body = ast.parse(inspect.getsource(importlib.import_module(module))).body
    return next((node for node in body if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name), None)


def _value_doc(module: str, name: str) -> str:
    """Return the text below a constant."""
    body = ast.parse(inspect.getsource(importlib.import_module(module))).body
    at = next(i for i, node in enumerate(body) if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name)
    return ast.literal_eval(body[at + 1].value)  # type: ignore[attr-defined]


def _made_by(node: ast.ClassDef) -> str:
    """Return how a class is made: the arguments of `__init__`, the fields of a dataclass, or else its bases."""
    for method in node.body:
        if isinstance(method, ast.FunctionDef) and method.name == "__init__":
            return _signature(node.name, _given(method, is_bound=True), "")
    if not any("dataclass" in ast.unparse(one) for one in node.decorator_list):
        return f"class {node.name}({', '.join(map(ast.unparse, node.bases))})"
    fields = [ast.unparse(one) for one in node.body if isinstance(one, ast.AnnAssign)]
    return _signature(node.name, [re.sub(r"field\(default_factory=(\w+)\)", r"\1()", text) for text in fields], "")


def _called(name: str, node: ast.FunctionDef, *, is_method: bool) -> str:
    """Return how a function is called; of a property its name alone."""
    decorators = [ast.unparse(one) for one in node.decorator_list]
    if any(one.endswith("property") for one in decorators):
        return name
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return _signature(name, _given(node, is_bound=is_method and "staticmethod" not in decorators), result)


def _given(node: ast.FunctionDef, *, is_bound: bool) -> list[str]:
    """Return the arguments of a function as they are written; the first of a bound one is left out."""
    arguments = node.args
    plain = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(plain) - len(arguments.defaults)) + list(arguments.defaults)
    texts = [_argument(*pair) for pair in zip(plain, defaults, strict=True)][int(is_bound) :]
    if arguments.vararg:
        texts.append(f"*{ast.unparse(arguments.vararg)}")
    elif arguments.kwonlyargs:
        texts.append("*")
    texts += [_argument(*pair) for pair in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    return texts + ([f"**{ast.unparse(arguments.kwarg)}"] if arguments.kwarg else [])


def _argument(argument: ast.arg, default: ast.expr | None) -> str:
    return ast.unparse(argument) + ("" if default is None else f" = {ast.unparse(default)}")


def _signature(name: str, arguments: list[str], result: str) -> str:
    line = f"{name}({', '.join(arguments)}){result}"
    return (
        line if len(line) <= 100 else "".join([f"{name}(\n", *(f"    {text},\n" for text in arguments), f"){result}"])
    )


def _sections(node: ast.ClassDef | ast.FunctionDef) -> str:
    """Return a docstring in Google's style as Markdown: its lists become bullets."""
    lines = []
    for block in re.split(r"\n\n+", ast.get_docstring(node) or ""):
        head, _, rest = block.partition(":\n")
        if head in SECTIONS:
            is_text = head in ("Returns", "Yields", "Source")
            text = " ".join(textwrap.dedent(rest).split()) if is_text else "\n".join(_items(rest))
            lines.append(f"{head}:{' ' if is_text else chr(10) * 2}{text}")
        elif block.lstrip().startswith(">>>"):
            lines.append(f"```python\n{block}\n```")
        else:
            lines.append(block)
    return "\n\n".join(lines)


def _items(text: str) -> list[str]:
    """Return the entries of a section, each on one line of a Markdown list."""
    joined = textwrap.dedent(text).replace("\n    ", " ")
    return [f"- {re.sub(r'^([*]*[a-zA-Z_.]+):', _as_code, item)}" for item in joined.splitlines()]


def _as_code(match: re.Match[str]) -> str:
    return f"`{match[1]}`:"


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
    print(f"wrote {TARGET}")
