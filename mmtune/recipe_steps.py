"""What the steps of a recipe do, and what each reads, by verb. When they run: `recipe.py`."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING
from rich.console import Console

from mmtune.config import config_from_values, typed_values
from mmtune.errors import ConfigError, Interrupted
from mmtune.recipe_identity import CompareIdentityConfig, IdentityConfig, compare_identity, make_data
from mmtune.recipe_models import EvalConfig, ExportConfig, MergeConfig, evaluate, export, merge
from mmtune.run_folder import write_json, write_manifest
from mmtune.schema_stream import is_streamed


@dataclass
class CompareConfig:
    """What the `compare` step asks."""

    models: list[str] = MISSING  # run folders from before to after; `base` is the untrained language model
    questions: dict[str, str] = MISSING  # name of the set -> questions file
    controls: list[str] = field(default_factory=lambda: ["blank", "shuffled"])  # wrong images for the last model
    num_control_questions: int | None = None  # ask the controls on so many questions, spread evenly; None: on all
    max_new_tokens: int = 64
    batch_size: int = 32
    title: str = "Before and after"
    labels: dict[str, str] = field(default_factory=dict)  # name of a model -> what to call it on the page
    credits: list[str] = field(default_factory=list)


@dataclass
class ScenesConfig:
    """What the `make-scenes` step makes; see `mmtune.data.makers.scenes.make_scenes`."""

    seed: int = 0
    num_caption_images: int = 1080
    num_dialogue_images: int = 400
    num_heldout_captions: int = 100
    num_heldout_questions_per_group: int = 50
    num_unseen_questions_per_group: int = 10
    num_text_repeats: int = 3
    image_size: int = 160


@dataclass
class EasyVQAConfig:
    """What the `make-easy-vqa` step makes; see `mmtune.data.makers.easy_vqa.make_easy_vqa`."""

    seed: int = 0
    num_train_images: int | None = None
    num_test_images: int | None = None
    num_validation_images: int = 0
    with_evidence: bool = False
    max_questions_per_record: int | None = None
    balance_verdicts: bool = False


def _train(values: dict[str, Any], folder: Path, verb: str) -> None:
    from mmtune.training.interruption import HOW_TO_CONTINUE
    from mmtune.training.run import train

    try:
        train(config_from_values(values, str(folder), verb), verb, resume=True)
    except Interrupted as interrupted:  # a recipe has no --resume
        saved = str(interrupted).removesuffix(HOW_TO_CONTINUE)
        raise Interrupted(f"{saved}; the same command continues", interrupted.exit_code) from None


def _make_scenes(values: dict[str, Any], folder: Path, verb: str) -> None:
    from mmtune.data.makers.scenes import make_scenes

    shutil.rmtree(folder, ignore_errors=True)
    make_scenes(folder, **vars(typed_values(values, ScenesConfig, "make-scenes")))
    write_manifest(folder)


def _make_easy_vqa(values: dict[str, Any], folder: Path, verb: str) -> None:
    from mmtune.data.makers.easy_vqa import make_easy_vqa

    shutil.rmtree(folder, ignore_errors=True)
    make_easy_vqa(folder, **vars(typed_values(values, EasyVQAConfig, "make-easy-vqa")))
    write_manifest(folder)


def _compare(values: dict[str, Any], folder: Path, verb: str) -> None:
    from mmtune.chat.generate import Decoding
    from mmtune.evaluate.compare import compare_models
    from mmtune.evaluate.questions import read_questions
    from mmtune.evaluate.report import PAGE_FILE, build_report, write_report
    from mmtune.evaluate.report_tables import print_report

    config = typed_values(values, CompareConfig, "compare")
    if not config.models:
        raise ConfigError("compare", "'models' names no model. Give run folders, such as [base, runs/demo/finetune].")
    shutil.rmtree(folder, ignore_errors=True)
    questions = [q for name, path in config.questions.items() for q in read_questions(path, set_name=name)]
    decoding = Decoding(max_new_tokens=config.max_new_tokens)
    comparison = compare_models(
        config.models,
        questions,
        controls=config.controls,
        num_control_questions=config.num_control_questions,
        decoding=decoding,
        batch_size=config.batch_size,
    )
    for model in comparison.models:
        model["label"] = config.labels.get(model["name"], model["label"])
    report = build_report(comparison, config.models, config.title, config.credits)
    write_report(report, folder)
    write_manifest(folder)
    console = Console()
    print_report(report, console)
    console.print(f"\nThe page with all answers: {(folder / PAGE_FILE).resolve()}", soft_wrap=True, highlight=False)


def _make_identity(values: dict[str, Any], folder: Path, verb: str) -> None:
    make_data(folder, typed_values(values, IdentityConfig, verb))


def _compare_identity(values: dict[str, Any], folder: Path, verb: str) -> None:
    config = typed_values(values, CompareIdentityConfig, verb)
    shutil.rmtree(folder, ignore_errors=True)
    compare_identity(folder, config)


def _check(values: dict[str, Any], folder: Path, verb: str) -> None:
    from mmtune.build_data import build_reader
    from mmtune.evaluate.data_check import check_data, require_good_check
    from mmtune.evaluate.data_report import check_table

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    console = Console(soft_wrap=True)
    for name, step in values["steps"].items():
        config = config_from_values(step["config"], name, step["verb"])
        if is_streamed(config.data):
            console.print(f"{name}: a stream is checked while it is read", highlight=False)
            continue
        findings = folder / f"{name}.jsonl"
        summary = check_data(config, build_reader(config.model), findings)
        write_json(folder / f"{name}.json", summary)
        for line in check_table(summary):
            console.print(line, highlight=False)
        require_good_check(config, summary, findings)
    write_manifest(folder)


def _merge(values: dict[str, Any], folder: Path, verb: str) -> None:
    merge(folder, typed_values(values, MergeConfig, verb))


def _eval(values: dict[str, Any], folder: Path, verb: str) -> None:
    evaluate(folder, typed_values(values, EvalConfig, verb))


def _export(values: dict[str, Any], folder: Path, verb: str) -> None:
    export(folder, typed_values(values, ExportConfig, verb))


def _data_of(values: dict[str, Any]) -> list[str]:
    data = values["data"]
    return [source["path"] for source in (*data["train"], *data.get("validation", []))]


def _read_by_training(values: dict[str, Any]) -> list[str]:
    model = values["model"]
    start = [model["init_from"]] if model.get("init_from") else []
    return [*start, *model.get("stack_on", []), *_data_of(values)]


def _read_by_check(values: dict[str, Any]) -> list[str]:
    """Return the data alone: the run that a training starts from may be yet to be made."""
    return [path for step in values["steps"].values() for path in _data_of(step["config"])]


def _read_by_compare(values: dict[str, Any]) -> list[str]:
    return [*_runs_of(values), *values["questions"].values()]


def _read_by_compare_identity(values: dict[str, Any]) -> list[str]:
    return [*_runs_of(values), values["data"]]


def _runs_of(values: dict[str, Any]) -> list[str]:
    from mmtune.evaluate.compare import BASE

    return [name for name in values["models"] if name != BASE]


def _read_by_merge(values: dict[str, Any]) -> list[str]:
    return [*values["runs"]]


def _read_by_eval(values: dict[str, Any]) -> list[str]:
    return [values["run"], values["data"]]


def _read_by_export(values: dict[str, Any]) -> list[str]:
    return [values["run"]]


def _nothing(values: dict[str, Any]) -> list[str]:
    return []


@dataclass(frozen=True)
class Verb:
    """What a verb of a recipe does.

    Attributes:
        run: does it, given the keys of the step, its folder and the verb. Called again after it was interrupted. It
            ends with a manifest.
        reads: returns the paths whose content decides its output, given its keys, which `read_steps` has checked.
        keys: a dataclass of its keys; None of a training, which has those of a config, and of `check`.
    """

    run: Callable[[dict[str, Any], Path, str], None]
    reads: Callable[[dict[str, Any]], list[str]]
    keys: Any = None


CHECK = "check"
VERBS: dict[str, Verb] = {
    CHECK: Verb(_check, _read_by_check),
    "pretrain": Verb(_train, _read_by_training),
    "finetune": Verb(_train, _read_by_training),
    "sft": Verb(_train, _read_by_training),
    "make-scenes": Verb(_make_scenes, _nothing, ScenesConfig),
    "make-easy-vqa": Verb(_make_easy_vqa, _nothing, EasyVQAConfig),
    "compare": Verb(_compare, _read_by_compare, CompareConfig),
    "make-identity": Verb(_make_identity, _nothing, IdentityConfig),
    "compare-identity": Verb(_compare_identity, _read_by_compare_identity, CompareIdentityConfig),
    "merge": Verb(_merge, _read_by_merge, MergeConfig),
    "eval": Verb(_eval, _read_by_eval, EvalConfig),
    "export": Verb(_export, _read_by_export, ExportConfig),
}
