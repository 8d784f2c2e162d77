"""The card of a run as rows of text: what it is made of, what it was trained on and how. From a `RunView` alone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmtune.plain_text import shortened
from mmtune.schema import Config
from mmtune.serve.run_view import RunView
from mmtune.sizes import GIB

Row = tuple[str, str]


def card_rows(run: RunView) -> list[Row]:
    """Return rows of the card: a key of `web_text.py` without `card_`, and a text. Unknown rows are left out."""
    config = run.config
    rows = [("verb", run.versions.get("verb", ""))]
    if config is not None:
        rows += _model_rows(config)
    rows += _data_rows(run.data)
    if config is not None:
        rows += _training_rows(config)
    rows += _result_rows(run)
    return [(key, words) for key, words in rows if words]


def _model_rows(config: Config) -> Iterator[Row]:
    model = config.model
    quantization = f" ({model.llm.quantization})" if model.llm.quantization else ""
    yield "llm", _name(model.llm.name_or_path) + quantization
    if model.vision is not None:
        yield "vision", _name(model.vision.name)
    yield "init", ", ".join(_name(run) for run in (model.init_from, *model.stack_on) if run)
    tuned = {"llm": model.llm.tune}
    if model.projector is not None:
        tuned["projector"] = model.projector.tune
    if model.vision is not None:
        tuned["vision"] = model.vision.tune
    yield "trained", ", ".join(f"{part}: {_short(how)}" for part, how in tuned.items() if how != "frozen")
    if model.adapter is not None and model.llm.tune == "adapter":
        yield "adapter", ", ".join(f"{key} {_short(value)}" for key, value in model.adapter.items())


def _data_rows(data: dict[str, Any]) -> Iterator[Row]:
    sources = data.get("sources", [])
    yield "data", ", ".join(_name(source["path"]) for source in sources)
    if "num_samples" in data:
        yield "samples", f"{data['num_samples']:,}, {data['num_records']:,}"
    if "num_tokens" in data:
        yield "tokens", f"{data['num_tokens']:,}, {data['num_supervised_tokens']:,}"
    if data.get("skipped"):
        yield "skipped", f"{len(data['skipped']):,}"


def _training_rows(config: Config) -> Iterator[Row]:
    train = config.train
    yield "epochs", "" if train.max_steps > 0 else f"{train.num_train_epochs:g}"
    yield "batch", f"{train.per_device_train_batch_size} x {train.gradient_accumulation_steps}"
    yield "rate", f"{train.learning_rate:g}, {train.lr_scheduler_type}"
    yield "seed", str(train.seed)


def _result_rows(run: RunView) -> Iterator[Row]:
    speeds = [entry["speed"] for entry in run.steps if entry.get("speed")]
    if speeds:
        rates = sorted(speed["supervised_tokens_per_second"] for speed in speeds)
        yield "speed", f"{rates[len(rates) // 2]:,.0f}"
        yield "memory", f"{max(speed['peak_memory_bytes'] for speed in speeds) / GIB:.1f} GiB"
    best = run.manifest.get("best")
    if best:
        yield "best", ", ".join(f"{key} {_short(value)}" for key, value in best.items())
    yield "finished", str(run.manifest.get("finished", "")).replace("T", " ")
    yield "versions", ", ".join(f"{name} {number}" for name, number in run.versions.get("versions", {}).items())


def _name(path: str) -> str:
    """The last two parts of a path: a page need not tell where things lie on this machine."""
    return "/".join(Path(path).parts[-2:])


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    words = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return shortened(words, 60)
