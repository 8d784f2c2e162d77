"""The tools of the package, tools of users, and the limits that calls run within."""

import json
import re
import time
from pathlib import Path

import pytest

from mmtune.errors import ConfigError
from mmtune.tools.calculator import calculator
from mmtune.tools.clock import clock
from mmtune.tools.documents import look_up
from mmtune.tools.finding import find_tools
from mmtune.tools.running import Limits, run_call

MODULE = '''
"""Tools of a user."""
import os, subprocess, sys, time

def add(a: int, b: int = 1) -> int:
    """Add two numbers.

    More words."""
    print("noise")
    return a + b

def broken() -> str:
    raise KeyError("no such row")

def hang() -> str:
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    time.sleep(60)

def big() -> str:
    return "\\u00e9" * 500_000

def leave() -> str:
    os._exit(3)

def table() -> dict:
    return {"rows": [1, None]}

def untyped(x):
    return x

NUMBER = 3
'''


@pytest.fixture
def own(desk, request):
    """A module of a user's own tools, of a name of its own."""
    name = f"own_tools_{abs(hash(request.node.name))}"
    Path(f"{name}.py").write_text(MODULE)
    return lambda function: f"{name}:{function}"


def call(tools, name, limits=None, **arguments):
    return run_call(tools, json.dumps({"name": name, "parameters": arguments}), "parameters", limits or Limits())


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("2 * (3 + 4)", "14"),
        ("0.1 + 0.2", "0.3"),
        ("2^10 - 2**3", "1016"),
        ("7 // 2 + 7 % 4", "6"),
        ("−3 × 4 ÷ 2", "-6"),
        ("sqrt(16) + max(1, 2.5)", "6.5"),
        ("round(pi, 2)", "3.14"),
        ("10 / 4", "2.5"),
    ],
)
def test_the_calculator_computes(expression, value):
    assert calculator(expression) == value


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("__import__('os')", "there is no function __import__"),
        ("(1).__class__", "is no arithmetic"),
        ("[1, 2]", "is no arithmetic"),
        ("'a' * 9", "is no arithmetic"),
        ("True + 1", "is no arithmetic"),
        ("max(1, key=abs)", "is no arithmetic"),
        ("9 ** 9 ** 9", "grow too large"),
        ("(2 ** 4000) * (2 ** 4000)", "grow too large"),
        ("1 +", "is no arithmetic expression"),
        ("(-8) ** 0.5", "not real"),
        ("1" * 501, "more than 500 characters"),
    ],
)
def test_the_calculator_does_nothing_else(expression, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        calculator(expression)


def test_the_clock_knows_time_zones():
    assert clock().partition(" ")[0] == time.strftime("%Y-%m-%d", time.gmtime())
    with pytest.raises(ValueError, match="there is no time zone"):
        clock("../etc/passwd")


def test_documents_gives_the_passages_that_fit_and_nothing_from_outside(desk):
    Path("notes").mkdir()
    Path("secret.txt").write_text("The cat sleeps elsewhere.")
    Path("notes/cats.txt").write_text("The cat sleeps on the sofa.\n\nIt eats at noon.")
    Path("notes/dogs.md").write_text("The dog runs.")
    Path("notes/zh.txt").write_text("猫在沙发上睡觉。")
    Path("notes/link.txt").symlink_to(desk / "secret.txt")
    Path("notes/out").symlink_to(desk)
    found = look_up(Path("notes"), "Where does the cat sleep?")
    assert found.startswith("cats.txt: The cat sleeps on the sofa.")
    assert "elsewhere" not in found
    assert look_up(Path("notes"), "沙发").startswith("zh.txt: ")
    assert look_up(Path("notes"), "../secret.txt elsewhere") == "nothing found"


def test_a_tool_of_the_user_has_the_schema_of_its_signature(own):
    (tool,) = find_tools([own("add")])
    assert tool.schema == {
        "name": "add",
        "description": "Add two numbers.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a"],
        },
    }
    assert call([tool], "add", a=2, b=3) == "5", "what it prints is no result"
    assert call([tool], "add", b=3) == "error: add needs 'a'."
    assert call([tool], "add", a="2") == "error: add takes 'a' as integer (got \"2\")."
    assert call([tool], "add", a=1, c=2) == "error: add takes no 'c'. It takes a, b."
    assert call([tool], "sub", a=1) == "error: there is no tool 'sub'. There are add."


def test_a_package_brings_tools_by_an_entry_point(own, monkeypatch):
    package = Path("site")
    info = package / "weather_tools-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: weather-tools\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[mmtune.tools]\nsum = {own('add')}\nbad = nowhere:f\n")
    monkeypatch.syspath_prepend(str(package.resolve()))
    tools = find_tools(["sum", "clock"])
    assert [tool.name for tool in tools] == ["sum", "clock"]
    assert call(tools, "sum", a=2, b=3) == "5"
    with pytest.raises(ConfigError, match="Did you mean 'sum'"):
        find_tools(["sums"])
    with pytest.raises(ConfigError, match="--tools bad: cannot be imported"):
        find_tools(["bad"])


def test_a_tool_that_raises_hangs_dies_or_returns_a_megabyte_is_an_answer(own):
    tools = find_tools([",".join(map(own, ("broken", "hang", "big", "leave", "table")))])
    assert call(tools, "broken") == "error: KeyError: 'no such row'"
    started = time.monotonic()
    assert call(tools, "hang", Limits(seconds=2)) == "error: hang took longer than 2 seconds and was stopped."
    assert time.monotonic() - started < 20
    big = call(tools, "big", Limits(num_bytes=101))
    assert big == "é" * 50 + "\n[cut: the first 101 of 1000000 bytes]"
    assert call(tools, "leave") == "error: leave ended without a result (exit code 3)."
    assert call(tools, "table") == '{"rows": [1, null]}'


@pytest.mark.parametrize("text", ["", "calculator(1)", "[1]", '{"name": 1}', "{" * 5000])
def test_what_is_no_call_is_an_answer_too(text):
    assert run_call(find_tools(["calculator"]), text, "parameters", Limits()).startswith("error: a call is a JSON")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["calculater"], "--tools: unknown name 'calculater'. Did you mean 'calculator'?"),
        (["documents"], "--tools documents: names no folder. Write documents:FOLDER."),
        (["documents:nowhere"], "no such folder (resolved to "),
        (["clock,clock"], "--tools clock: there are two tools named 'clock'."),
        (["no_such_module:f"], "cannot be imported (ModuleNotFoundError: No module named 'no_such_module')."),
        (["math:nothing"], "module math has no 'nothing'."),
        (["math:pi"], "is no function (got float)."),
    ],
)
def test_a_tool_that_is_not_there_is_one_line(desk, names, words):
    with pytest.raises(ConfigError) as error:
        find_tools(names)
    assert words in str(error.value)


def test_a_function_without_types_is_refused(own):
    with pytest.raises(ConfigError, match="its parameter 'x' needs a type"):
        find_tools([own("untyped")])
