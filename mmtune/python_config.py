"""Reads a config that is Python text, such as those of mmengine and XTuner, without running it.

Assignments of constants, names, lists, dictionaries, `dict(...)` and simple arithmetic become plain values. An imported
name becomes a `Reference`; anything that would have to be run becomes `Unread`, with its line.
"""

import ast
import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mmtune.errors import ConfigError


@dataclass(frozen=True)
class Reference:
    """An imported name, or an attribute of one: `torch.optim.AdamW`."""

    path: str

    @property
    def name(self) -> str:
        """Its last part: `AdamW`; the class for `AutoTokenizer.from_pretrained`."""
        return self.path.removesuffix(".from_pretrained").rpartition(".")[2]


@dataclass(frozen=True)
class Unread:
    """A value that only running the file would give: its text and line."""

    text: str
    line: int


@dataclass
class PythonConfig:
    """The values that a file assigns, by name, and the statements that were not read, as `line N: text`."""

    values: dict[str, Any] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)


OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
}
UNARY: dict[type, Callable[[Any], Any]] = {ast.USub: operator.neg, ast.UAdd: operator.pos, ast.Not: operator.not_}
FUNCTIONS: dict[str, Callable[..., Any]] = {"int": int, "float": float, "str": str, "len": len, "round": round}
"""The functions that are called, on constants alone; `dict`, `list` and `tuple` are read as displays."""

LARGEST = 1e18


class _CannotRead(Exception):
    """Only running the file would give this value."""


def read_python_config(text: str, place: str) -> PythonConfig:
    """Read the values of a Python config.

    Args:
        text: of the file.
        place: its path, for errors.

    Raises:
        ConfigError: it is no Python, or it inherits from other files (`read_base`, `_base_`).
    """
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError) as error:
        line = f":{error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        raise ConfigError(f"{place}{line}", f"no Python config: {str(error).splitlines()[0]}. Mend it.") from None
    config = PythonConfig()
    _read_statements(tree.body, config, place)
    return config


def _read_statements(statements: list[ast.stmt], config: PythonConfig, place: str) -> None:
    for statement in statements:
        match statement:
            case ast.Import(names=names):
                for alias in names:
                    bound = alias.asname or alias.name.split(".")[0]
                    config.values[bound] = Reference(alias.name if alias.asname else bound)
            case ast.ImportFrom(module=module, names=names):
                for alias in names:
                    config.values[alias.asname or alias.name] = Reference(f"{module}.{alias.name}")
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                _refuse_base(name, statement, place)
                config.values[name] = _value(value, config.values)
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                config.values[name] = _value(value, config.values)
            case ast.AugAssign(target=ast.Name(id=name) as target, op=op, value=value):
                both = ast.BinOp(ast.Name(id=name, ctx=ast.Load()), op, value)
                config.values[name] = _value(ast.copy_location(both, target), config.values)
            case ast.If(test=test, body=body, orelse=orelse):
                _read_branch(statement, _value(test, config.values), body, orelse, config, place)
            case ast.Expr(value=ast.Constant()) | ast.Pass():
                pass
            case _:
                _refuse_base(ast.unparse(statement), statement, place)
                config.unread.append(f"line {statement.lineno}: {_short(statement)}")


def _read_branch(
    statement: ast.If, test: Any, body: list[ast.stmt], orelse: list[ast.stmt], config: PythonConfig, place: str
) -> None:
    if isinstance(test, Unread | Reference):
        config.unread.append(f"line {statement.lineno}: if {_short(statement.test)}")
    else:
        _read_statements(body if test else orelse, config, place)


def _refuse_base(text: str, statement: ast.stmt, place: str) -> None:
    if text == "_base_" or text.startswith("with read_base()"):
        message = "this config inherits from other files. Convert the file that it builds on, then change the keys."
        raise ConfigError(f"{place}:{statement.lineno}", message)


def _value(node: ast.expr, names: dict[str, Any]) -> Any:
    """Return the value of an expression, or `Unread` where it would have to be run."""
    try:
        return _evaluated(node, names)
    except (_CannotRead, ArithmeticError, TypeError, ValueError, LookupError, RecursionError):
        return Unread(_short(node), node.lineno)


def _evaluated(node: ast.expr, names: dict[str, Any]) -> Any:
    def inner(part: ast.expr) -> Any:
        value = _evaluated(part, names)
        if isinstance(value, Unread | Reference):
            raise _CannotRead
        return value

    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name) if name in names:
            return names[name]
        case ast.Attribute(value=owner, attr=attribute):
            whole = _evaluated(owner, names)
            if isinstance(whole, Reference):
                return Reference(f"{whole.path}.{attribute}")
        case ast.List(elts=parts):
            return [_value(part, names) for part in parts]
        case ast.Tuple(elts=parts):
            return tuple(_value(part, names) for part in parts)
        case ast.Dict(keys=keys, values=values) if None not in keys:
            return {inner(key): _value(value, names) for key, value in zip(keys, values, strict=True) if key}
        case ast.Call(func=ast.Name(id=function), args=args, keywords=keywords):
            return _called(function, args, keywords, names, inner)
        case ast.UnaryOp(op=op, operand=operand):
            return UNARY[type(op)](inner(operand))
        case ast.BinOp(left=left, op=op, right=right):
            return _limited(op, inner(left), inner(right))
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            return OPERATORS[type(op)](inner(left), inner(right))
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return _evaluated(body if inner(test) else orelse, names)
        case ast.Subscript(value=owner, slice=index):
            return inner(owner)[inner(index)]
        case ast.JoinedStr(values=parts):
            return "".join(str(inner(part.value if isinstance(part, ast.FormattedValue) else part)) for part in parts)
    raise _CannotRead


def _called(
    function: str,
    args: list[ast.expr],
    keywords: list[ast.keyword],
    names: dict[str, Any],
    inner: Callable[[ast.expr], Any],
) -> Any:
    if function in names:
        raise _CannotRead
    if function == "dict" and not args:
        merged: dict[str, Any] = {}
        for keyword in keywords:  # `dict(a=1, **b)`: a keyword without a name is a whole dictionary
            merged |= inner(keyword.value) if keyword.arg is None else {keyword.arg: _value(keyword.value, names)}
        return merged
    if keywords or function not in FUNCTIONS:
        raise _CannotRead
    return FUNCTIONS[function](*map(inner, args))


def _limited(op: ast.operator, left: Any, right: Any) -> Any:
    """Calculate, but nothing that a config has no use for and that would take all memory."""
    are_numbers = isinstance(left, int | float) and isinstance(right, int | float)
    is_power = isinstance(op, ast.Pow) and not (are_numbers and abs(left) <= 1e6 and abs(right) <= 3)
    if is_power or (isinstance(op, ast.Mult | ast.Mod) and not are_numbers):
        raise _CannotRead
    result = OPERATORS[type(op)](left, right)
    if are_numbers and abs(result) > LARGEST:
        raise _CannotRead
    return result


def _short(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 80 else f"{text[:77]}..."
