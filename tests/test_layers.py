"""Who may import whom, and what no file of the package does."""

import ast
from pathlib import Path

import pytest

import mmtune

PACKAGE = Path(mmtune.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

FOUNDATION = {
    "conversation",
    "errors",
    "lookup",
    "processes",
    "hashing",
    "durable",
    "sizes",
    "shipped",
    "python_config",
    "torchvision_ops",
    "cache",
    "markdown",
    "plain_text",
    "logs",
}
BUILT = FOUNDATION | {
    "data",
    "models",
    "build",
    "build_data",
    "build_stack",
    "build_trained",
    "build_folder",
    "run_folder",
    "same_models",
    "parts",
    "config",
    "config_words",
    "schema",
    "schema_check",
    "schema_evaluation",
    "schema_sharding",
    "schema_stream",
    "schema_train",
    "schema_tune",
    "progress",
    "logs",
}

MAY_IMPORT = {
    "__init__": BUILT | {"conversation", "saving", "training", "evaluate", "export", "chat", "merge", "recipe"},
    "errors": set(),
    "conversation": set(),
    "hashing": set(),
    "processes": set(),
    "durable": {"errors"},
    "sizes": set(),
    "markdown": set(),
    "plain_text": set(),
    "cache": set(),
    "progress": {"logs"},
    "logs": {"errors", "lookup", "processes"},
    "testing": {"torchvision_ops", "models"},
    "testing_vision": {"torchvision_ops", "models"},
    "torchvision_ops": set(),
    "lookup": {"errors"},
    "python_config": {"errors"},
    "shipped": {"errors", "lookup"},
    "schema": set(),
    "schema_check": {"schema", "schema_tune"},
    "schema_tune": set(),
    "schema_evaluation": {"lookup", "schema"},
    "schema_sharding": {"schema"},
    "schema_stream": {"schema"},
    "schema_train": {"schema"},
    "other_words": set(),
    "config_words": {"errors"},
    "config": {
        "config_words",
        "errors",
        "lookup",
        "schema",
        "schema_check",
        "schema_evaluation",
        "schema_sharding",
        "schema_stream",
        "schema_train",
        "schema_tune",
        "other_words",
        "shipped",
    },
    "data": {"conversation", "errors", "lookup", "hashing", "sizes", "cache"},
    "models": {"conversation", "errors", "lookup", "hashing", "cache", "python_config", "processes", "torchvision_ops"},
    "convert": FOUNDATION | {"config", "schema", "data"},
    "run_folder": {"config", "schema", "errors", "hashing", "durable", "lookup"},
    "same_models": {"run_folder", "errors"},
    "parts": {"conversation", "data", "errors", "models", "run_folder"},
    "build_data": BUILT - {"build", "build_folder", "build_stack", "build_trained"},
    "build_stack": BUILT - {"build", "build_folder", "build_data", "build_trained"},
    "build_trained": BUILT - {"build", "build_folder"},
    "build": BUILT - {"build_folder"},
    "build_folder": BUILT,
    "tools": {"errors", "lookup"},
    "chat": BUILT | {"tools"},
    "merge": BUILT,
    "saving": BUILT,
    "training": BUILT | {"chat"},
    "evaluate": BUILT | {"chat", "training"},
    "export": BUILT | {"chat"},
    "benchmark": BUILT | {"training", "testing", "testing_vision"},
    "serve": BUILT | {"chat", "training", "evaluate"},
    "recipe_identity": BUILT | {"evaluate", "chat"},
    "recipe_models": BUILT | {"merge", "export", "evaluate"},
    "recipe_steps": BUILT | {"training", "evaluate", "chat", "recipe_identity", "recipe_models"},
    "recipe_file": BUILT | {"recipe_steps"},
    "recipe_inputs": BUILT | {"recipe_steps", "recipe_file", "training"},
    "recipe_card_text": BUILT | {"evaluate"},
    "recipe_card": BUILT | {"evaluate", "export", "recipe_file", "recipe_inputs", "recipe_card_text", "training"},
    "recipe": BUILT | {"recipe_steps", "recipe_file", "recipe_inputs", "recipe_card", "training"},
    "doctor": BUILT | {"chat", "training", "__init__"},
    "recipe_plan": BUILT | {"recipe_steps", "recipe_file", "recipe_inputs", "recipe", "training"},
    "cli": BUILT
    | {
        "tools",
        "training",
        "evaluate",
        "export",
        "chat",
        "recipe",
        "recipe_identity",
        "recipe_plan",
        "convert",
        "benchmark",
        "doctor",
        "merge",
        "serve",
        "__init__",
    },
    "__main__": {"cli"},
}
"""Module or package of mmtune -> what of mmtune it may import, at the top of a file or inside a function."""


def layer_of(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported(path):
    """Yield the modules and packages of mmtune that a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            names = (
                [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "mmtune" else [node.module]
            )
        else:
            continue
        for name in names:
            if name.split(".")[0] == "mmtune":
                part = name.split(".")[1] if "." in name else ""
                yield part if part in MAY_IMPORT else "__init__"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_only_what_lies_below_it(path):
    layer = layer_of(path)
    assert layer in MAY_IMPORT, f"{layer} has no place in the layers yet: add it to MAY_IMPORT"
    assert set(imported(path)) <= MAY_IMPORT[layer] | {layer}


def test_data_and_models_never_meet_and_know_no_config():
    for layer, other in (("data", "models"), ("models", "data")):
        assert not MAY_IMPORT[layer] & {other, "config", "schema", "build"}


def test_the_layers_have_no_circle():
    done = set()
    while len(done) < len(MAY_IMPORT):
        ready = {layer for layer in MAY_IMPORT.keys() - done if MAY_IMPORT[layer] - {layer} <= done}
        assert ready, f"a circle in {sorted(MAY_IMPORT.keys() - done)}"
        done |= ready


def test_no_file_has_a_name_that_says_nothing():
    assert not {path.stem for path in FILES} & {"utils", "util", "common", "misc", "helpers", "helper"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_star_imports_and_no_probing_for_attributes(path):
    """`getattr` with a name that code chose is a lookup; with a default it asks what an object is."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert all(alias.name != "*" for alias in node.names), f"{path}:{node.lineno}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            probes = node.func.id == "hasattr" or (node.func.id == "getattr" and len(node.args) == 3)
            assert not probes or is_about_the_platform(node), f"{path}:{node.lineno}: {ast.unparse(node)}"


def is_about_the_platform(call):
    """`hasattr(signal, "SIGPIPE")` is how Python's own manual asks for a signal that Windows lacks."""
    return ast.unparse(call.args[0]) == "signal"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_file_opens_with_what_lives_there(path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
