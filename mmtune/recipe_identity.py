"""The recipe of `mmtune identity`: its three steps, and what the first and the last of them do."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING
from rich.console import Console

from mmtune.config import read_yaml
from mmtune.errors import ConfigError
from mmtune.run_folder import write_manifest
from mmtune.shipped import find_config, shipped_configs

DEFAULT_CONFIG = "sft/identity"
REPEATS = {"identity": 1.0, "near": 4.0, "general": 1.0}
"""How often an epoch visits each record: near misses are where a name leaks to first."""
DATA, TUNE, COMPARE = "data", "tune", "compare"


@dataclass
class IdentityConfig:
    """What the `make-identity` step makes; see `mmtune.data.makers.identity.make_identity`."""

    name: str = MISSING
    author: str = MISSING
    languages: list[str] = field(default_factory=lambda: ["en"])
    style: str = "plain"
    seed: int = 0
    held_out: float = 0.25


@dataclass
class CompareIdentityConfig:
    """What the `compare-identity` step asks."""

    models: list[str] = MISSING  # run folders from before to after; `base` is the untrained language model
    data: str = MISSING  # the folder that make-identity wrote
    max_new_tokens: int = 48
    batch_size: int = 32


def make_data(folder: Path, config: IdentityConfig) -> None:
    """Write the data, and say which questions are left out."""
    from mmtune.data.makers.identity import make_identity

    settings = {**vars(config), "languages": tuple(config.languages)}
    made = make_identity(folder, overwrite=True, **settings)
    for question in made.left_out:
        print(f"left out, since it mentions the name or the author: {question}")
    write_manifest(folder)


def compare_identity(folder: Path, config: CompareIdentityConfig) -> None:
    """Ask the held-out questions, write report and page, print the numbers and the verdict."""
    from mmtune.chat.generate import Decoding
    from mmtune.data.makers.identity import FACTS_FILE, HELD_OUT_OTHERS, HELD_OUT_SELF, Identity
    from mmtune.evaluate.compare import compare_models
    from mmtune.evaluate.identity import OTHERS, SELF, facts, identity_scores, print_scores
    from mmtune.evaluate.questions import read_questions
    from mmtune.evaluate.report import PAGE_FILE, build_report, write_report
    from mmtune.evaluate.report_tables import print_answers
    from mmtune.run_folder import read_json

    if not config.models:
        raise ConfigError("compare-identity", "'models' names no model. Give run folders, such as [base, runs/tune].")
    data = Path(config.data)
    identity = Identity(**read_json(data / FACTS_FILE))
    questions = read_questions(data / HELD_OUT_SELF, set_name=SELF)
    questions += read_questions(data / HELD_OUT_OTHERS, set_name=OTHERS)
    decoding = Decoding(max_new_tokens=config.max_new_tokens)
    comparison = compare_models(config.models, questions, decoding=decoding, batch_size=config.batch_size)
    scores = identity_scores(comparison, identity)
    found = facts(scores, [model["name"] for model in comparison.models])
    report = build_report(comparison, config.models, f"Who is {identity.name}? {found['verdict']}", [])
    write_report(report | {"identity": found}, folder)
    write_manifest(folder)
    console = Console()
    print_answers(report, console, limit=4)
    console.print()
    print_scores(scores[0], scores[-1], console)
    console.print(f"\nAll answers: {(folder / PAGE_FILE).resolve()}", soft_wrap=True, highlight=False)


def identity_steps(
    identity: IdentityConfig,
    folder: Path,
    *,
    model: str | None = None,
    system: str | None = None,
    max_new_tokens: int = 48,
) -> list[dict[str, Any]]:
    """Return the steps of a recipe: make the data, tune on it, compare.

    Args:
        identity: what the data is made from.
        folder: of the recipe, under which each step has its own.
        model: a config of `sft` whose data is replaced, or the name or folder of a language model, which is trained as
            the shipped config says; None takes that config.
        system: the system message that the model is trained and asked with.
        max_new_tokens: the longest answer that is compared.
    """
    from mmtune.data.makers.identity import REPEATED, TRAIN_FILES

    kinds = ("identity",) if identity.style == REPEATED else TRAIN_FILES
    values = _model_config(model)
    values.setdefault("data", {})["train"] = [
        {"path": str(folder / DATA / TRAIN_FILES[kind]), "repeat": REPEATS[kind]}
        | ({"system": system} if system else {})
        for kind in kinds
    ]
    compared = {"models": ["base", str(folder / TUNE)], "data": str(folder / DATA), "max_new_tokens": max_new_tokens}
    return [
        {"name": DATA, "verb": "make-identity", "config": vars(identity)},
        {"name": TUNE, "verb": "sft", "config": values, "needs": [DATA]},
        {"name": COMPARE, "verb": "compare-identity", "config": compared, "needs": [DATA, TUNE]},
    ]


def _model_config(model: str | None) -> dict[str, Any]:
    name = model or DEFAULT_CONFIG
    if name.endswith((".yaml", ".yml")) or Path(name).is_file() or name in shipped_configs():
        values: dict[str, Any] = read_yaml(find_config(name))
        if "steps" in values:
            raise ConfigError("--model", f"{name} is a recipe of several steps. Name a config of `mmtune sft`.")
        return values
    values = read_yaml(find_config(DEFAULT_CONFIG))
    llm = values["model"]["llm"]
    if name != llm["name_or_path"]:
        llm |= {"name_or_path": name, "chat_template": "tokenizer"}
    return values
