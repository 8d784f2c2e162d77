"""Writes docs/config.md from mmtune/schema.py: its dataclasses, their defaults and the comments behind the fields.

Run `python docs/generate_config.py` after a change of the schema; a test compares the file with what this makes.
"""

import ast
import dataclasses
import importlib
import inspect
import io
import re
import tokenize
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from omegaconf import MISSING

from mmtune import other_words, schema, schema_check

TARGET = Path(__file__).with_name("config.md")
SECTIONS = {
    "model": schema.ModelConfig,
    "model.llm": schema.LLMConfig,
    "model.vision": schema.VisionConfig,
    "model.projector": schema.ProjectorConfig,
    "data": schema.DataConfig,
    "data.train": schema.DataSource,
    "train": schema.TrainConfig,
    "sample": schema.SampleConfig,
}
TYPES = {str: "text", int: "whole number", float: "number", bool: "true or false", NoneType: "null"}

MEANINGS = {
    "learning_rate": "null: train.learning_rate",
    "weight_decay": "null: train.weight_decay",
    "tune": "whether this part trains",
    "model.llm.tune": "frozen, trained through `model.adapter`, or trained in full",
    "model.llm": "see below",
    "model.projector": "see below; set together with `model.vision`",
    "data.train": "data files, see below; at least one",
    "data.train.path": "a .json or .jsonl file",
    "train.output_dir": "the run folder",
    "train.per_device_train_batch_size": "samples in a batch",
    "train.gradient_accumulation_steps": "batches in an optimizer step",
    "train.num_train_epochs": "passes over the data",
    "train.learning_rate": "where no part sets its own",
    "train.lr_scheduler_type": "a schedule of transformers, see docs/optimizers.md",
    "train.warmup_ratio": "share of the steps in which the learning rate rises",
    "train.optim": "an optimizer of transformers, or a short word such as `lion`; see docs/optimizers.md",
    "train.adam_beta1": "decay of Adam's first moment",
    "train.adam_beta2": "decay of Adam's second moment",
    "train.weight_decay": "where no part sets its own; norms and biases have none",
    "train.max_grad_norm": "gradients are clipped to this norm; 0: not at all",
    "train.logging_steps": "steps between two lines of log.jsonl",
    "train.save_total_limit": "checkpoints kept; null: all",
    "train.dataloader_num_workers": "processes that open images; 0: none beside the main one",
    "train.seed": "of new weights, the order of samples and dropout",
}
"""What keys mean whose field has no comment: `section.key`, or `key` for every section."""

NEVER_EMPTY = ("data.train", "sample.questions")
"""Lists that need an entry."""

OPENING = """# Config keys

Generated from `mmtune/schema.py` by `docs/generate_config.py`; do not edit.

A config is a YAML file with the sections `model`, `data`, `train` and, where answers are wanted meanwhile, `sample`.
`section.name=value` on the command line sets a key; an entry of a list has its number, as in `data.train.0.path=FILE`.
Unknown keys are errors. Relative paths are relative to the working directory. Every run writes its resolved
`config.yaml`.
"""


def render() -> str:
    """Return the text of docs/config.md."""
    parts = [OPENING]
    for prefix, section in SECTIONS.items():
        parts.append(f"## {prefix}{' (each entry)' if prefix == 'data.train' else ''}\n\n{section_doc(section)}\n")
        parts.append(table(("key", "type", "default", "meaning"), rows(prefix, section)))
    parts.append("## What the verbs set\n\nBefore the file is read; the three verbs share all other defaults.\n")
    verbs = [(f"`{verb}`", "<br>".join(flat(values))) for verb, values in schema.VERB_DEFAULTS.items()]
    parts.append(table(("verb", "defaults"), verbs))
    parts.append("An adapter of your own (one with a `kind`) replaces the verb's as a whole.\n")
    parts.append("## Words of other tools\n\nThese keys are errors that name ours, or what does it.\n")
    words = sorted((other_words.OTHER_WORDS | other_words.WORDS_WITHOUT_KEY).items(), key=lambda pair: pair[0].lower())
    parts.append(table(("there", "here"), [(f"`{there}`", here) for there, here in words]))
    return "\n".join(parts)


def section_doc(section: type) -> str:
    """Return the docstring of a section as one paragraph."""
    return " ".join((inspect.getdoc(section) or "").split())


def rows(prefix: str, section: Any) -> list[tuple[str, ...]]:
    """Return key, type, default and meaning of each field of a section."""
    hints, comments = get_type_hints(section), field_comments()[section.__name__]
    found = []
    for field in dataclasses.fields(section):
        key = f"{prefix}.{field.name}"
        meaning = comments.get(field.name) or MEANINGS.get(key) or MEANINGS.get(field.name)
        if meaning is None:
            raise SystemExit(f"mmtune/schema.py: {key} has no comment. Say behind the field what it means.")
        words = in_words(hints[field.name]), default_of(key, field), with_keys(meaning) + bounds(key)
        found.append((f"`{key}`", *words))
    return found


def field_comments() -> dict[str, dict[str, str]]:
    """Return the comments behind the fields of schema.py: class -> field -> text."""
    source = inspect.getsource(schema)
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    by_line = {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}
    found: dict[str, dict[str, str]] = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef):
            found[node.name] = {}
            for field in node.body:
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                    lines = range(field.lineno, (field.end_lineno or field.lineno) + 1)
                    text = " ".join(by_line[line] for line in lines if line in by_line)
                    found[node.name][field.target.id] = text.replace("None", "null")
    return found


def with_keys(meaning: str) -> str:
    """Put the keys themselves for `a key of MODULE.TABLE`."""

    def keys(match: re.Match[str]) -> str:
        names = getattr(importlib.import_module(match[1]), match[2])
        return f"one of {', '.join(f'`{name}`' for name in names)}"

    return re.sub(r"a key of (mmtune\.[\w.]+)\.([A-Z_]+)", keys, meaning)


def bounds(key: str) -> str:
    """Return the lower bound of a key as it stands behind its meaning."""
    return " (above 0)" if key in schema_check.ABOVE_0 else " (0 or more)" if key in schema_check.AT_LEAST_0 else ""


def in_words(hint: Any) -> str:
    """Return what a type hint allows."""
    if hint in TYPES:
        return TYPES[hint]
    if dataclasses.is_dataclass(hint):
        return "section"
    if get_origin(hint) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(hint))
    if get_origin(hint) is list and get_args(hint) == (Any,):
        return "list"
    if get_origin(hint) is list:
        inner = in_words(get_args(hint)[0])
        return f"list of {'texts' if inner == 'text' else 'sections' if inner == 'section' else inner}"
    if get_origin(hint) is dict:
        return "section"
    return " or ".join(map(in_words, get_args(hint)))


def default_of(key: str, field: dataclasses.Field) -> str:
    """Return the default of a field as YAML."""
    if field.default == MISSING:
        return "required"
    if field.default is dataclasses.MISSING:
        assert field.default_factory is not dataclasses.MISSING
        if key in NEVER_EMPTY:
            return "required"
        return "`[]`" if field.default_factory is list else ""
    return f"`{yaml_value(field.default)}`"


def yaml_value(value: Any) -> str:
    """Return a plain value as YAML."""
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    return str(value)


def flat(values: dict[str, Any], prefix: str = "") -> list[str]:
    """Return nested values as `section.name: value` texts."""
    texts = []
    for key, value in values.items():
        name = f"{prefix}{key}"
        texts += flat(value, f"{name}.") if isinstance(value, dict) else [f"`{name}: {yaml_value(value)}`"]
    return texts


def table(titles: tuple[str, ...], lines: list[tuple[str, ...]]) -> str:
    """Return a Markdown table."""
    head = [f"| {' | '.join(titles)} |", f"|{'---|' * len(titles)}"]
    return (
        "\n".join(head + [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines])
        + "\n"
    )


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
    print(f"wrote {TARGET}")
