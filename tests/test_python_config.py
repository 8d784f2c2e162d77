"""Python configs are read, never run."""

import pytest

from mmtune.errors import ConfigError
from mmtune.python_config import Reference, Unread, read_python_config


def values(text):
    return read_python_config(text, "old.py").values


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("x = 2e-4", 2e-4),
        ("a = 'data/'\nx = a + 'train.json'", "data/train.json"),
        ("x = int(2048 - (336 / 14)**2)", 1472),
        ("n = 16\nn *= 2\nx = n", 32),
        ("x = [1]\nx += [2]", [1, 2]),
        ("x: int = -3", -3),
        ("x = dict(type='A', b=(1, 2.5), c=None)", {"type": "A", "b": (1, 2.5), "c": None}),
        ("a = dict(b=1)\nx = dict(c=2, **a)", {"c": 2, "b": 1}),
        ("x = {'a': [True]}", {"a": [True]}),
        ("from torch.optim import AdamW\nx = AdamW", Reference("torch.optim.AdamW")),
        ("import torch\nx = torch.float16", Reference("torch.float16")),
        ("from a import B as C\nx = dict(type=C.from_pretrained)", {"type": Reference("a.B.from_pretrained")}),
        ("n = 1\nx = 'a' if n > 1 else 'b'", "b"),
        ("n = True\nif n:\n    x = 1\nelse:\n    x = 2", 1),
        ("a = [5, 6]\nx = a[1]", 6),
        ("a = 3\nx = f'runs/{a}'", "runs/3"),
        ("x = not False", True),
    ],
)
def test_a_value(text, value):
    assert values(text)["x"] == value


@pytest.mark.parametrize(
    "text",
    [
        "open('was-run', 'w')",
        "__import__('os').system('touch was-run')",
        "[n for n in (1, 2)]",
        "(lambda: 1)()",
        "nowhere",
        "9 ** 9 ** 9",
        "10 ** 1000",
        "'a' * 10 ** 12",
        "1 / 0",
        "int('x')",
        "eval('1')",
        "1e18 * 1e18",
    ],
)
def test_what_would_have_to_be_run_is_left_unread(desk, text):
    read = read_python_config(f"y = 1\nx = {text}", "old.py")
    assert isinstance(read.values["x"], Unread)
    assert read.values["x"].line == 2
    assert list(desk.iterdir()) == []


def test_an_unread_part_leaves_the_rest():
    read = values("x = dict(a=1, b=open('y'), c=[2, open('z')])")["x"]
    assert (read["a"], read["b"].text, read["c"][0], read["c"][1].text) == (1, "open('y')", 2, "open('z')")


def test_a_name_that_shadows_a_function_is_not_called():
    assert isinstance(values("from evil import int\nx = int('1')")["x"], Unread)


def test_statements_that_are_no_assignment_are_listed():
    read = read_python_config(
        "'doc'\ndef f():\n    return 1\nx = 1\nfor n in []:\n    pass\nif f():\n    x = 2", "old.py"
    )
    assert read.unread == ["line 2: def f(): return 1", "line 5: for n in []: pass", "line 7: if f()"]
    assert read.values["x"] == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a = 1\nx = (", "old.py:2: no Python config: '(' was never closed"),
        (
            "a = 1\n_base_ = ['b.py']",
            "old.py:2: this config inherits from other files. Convert the file that it builds",
        ),
        (
            "from mmengine.config import read_base\nwith read_base():\n    from .b import *",
            "old.py:2: this config inherits",
        ),
        ("x\0", "old.py: no Python config: source code string cannot contain null bytes"),
    ],
)
def test_a_file_that_cannot_be_read(text, words):
    with pytest.raises(ConfigError) as caught:
        read_python_config(text, "old.py")
    assert words in str(caught.value)
