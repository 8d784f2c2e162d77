"""The card of a recipe as Markdown, with the front matter of a Hugging Face model card; see `recipe_card.py`."""

from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from mmtune.data.arrow_records import HUB_PREFIX
from mmtune.evaluate.questions import thinned
from mmtune.evaluate.report_markdown import score_table
from mmtune.evaluate.scores import ALL_GROUPS, OWN_CONDITIONS
from mmtune.markdown import inline, table

SETTINGS = (
    ("model", "llm", "chat_template"),
    ("model", "llm", "quantization"),
    ("model", "llm", "tune"),
    ("model", "adapter"),
    ("model", "projector", "kind"),
    ("model", "vision", "source"),
    ("model", "vision", "name"),
    ("model", "vision", "tune"),
    ("model", "init_from"),
    ("data", "max_length"),
    ("data", "pack_to_max_length"),
    ("train", "per_device_train_batch_size"),
    ("train", "gradient_accumulation_steps"),
    ("train", "num_train_epochs"),
    ("train", "max_steps"),
    ("train", "learning_rate"),
    ("train", "lr_scheduler_type"),
    ("train", "warmup_ratio"),
    ("train", "optim"),
    ("train", "weight_decay"),
    ("train", "seed"),
)
"""Keys of a config that the table of trainings shows; `card.json` has them all."""
LIBRARIES = {"hf-llava": "transformers", "merged": "transformers", "adapter": "peft", "gguf": "gguf"}
"""Format of an export -> `library_name` of the hub."""
NUM_LOSSES = 6
SCORED = (
    "whole answers, compared with the references; 95 % intervals (Wilson). Blank and swapped are the last model with an"
    " image of one colour and with that of another question."
)


def card_text(card: dict[str, Any], *, has_plots: bool) -> str:
    """Return the page of a card.

    Args:
        card: from `card_values`.
        has_plots: the plots of the trainings lie where the card says; in an export they do not.
    """
    sections = [
        f"# {inline(card['recipe'])}",
        _opening(card),
        *_section("Base models", _base_models(card)),
        *_section("Data", _data(card)),
        *_section("Training", _training(card, has_plots)),
        *_section("Scores", _scores(card)),
        *_section("Benchmarks", _benchmarks(card)),
        *_section("Sample answers", _samples(card)),
        *_section("Exports", _exports(card)),
        *_section("Steps", _steps(card)),
        *_section("Versions", [table(("library", "version"), list(card["versions"].items()))]),
    ]
    front = yaml.safe_dump(front_matter(card), sort_keys=False, allow_unicode=True)
    return f"---\n{front}---\n\n" + "\n\n".join(sections) + "\n"


def front_matter(card: dict[str, Any]) -> dict[str, Any]:
    """Return what the hub reads of a model card. A licence is for its author to choose."""
    configs = [training["config"] for training in card["trainings"]]
    sees = any(config["model"].get("vision") for config in configs)
    kinds = {str(config["model"]["adapter"]["kind"]) for config in configs if config["model"].get("adapter")}
    libraries = dict.fromkeys(LIBRARIES[e["format"]] for e in card["exports"] if e["format"] in LIBRARIES)
    models = [model["name"] for model in card["base_models"] if model["is_on_hub"]]
    paths = [source["path"] for config in configs for source in config["data"]["train"]]
    sets = dict.fromkeys(path.removeprefix(HUB_PREFIX) for path in paths if path.startswith(HUB_PREFIX))
    task = "image-text-to-text" if sees else "text-generation"
    front: dict[str, Any] = {"library_name": next(iter(libraries), "mmtune"), "pipeline_tag": task}
    front |= {"base_model": models} if models else {}
    front |= {"datasets": list(sets)} if sets else {}
    front["tags"] = ["mmtune", *sorted(kinds)]
    results = _results(card, task)
    return front | ({"model-index": [{"name": card["recipe"], "results": results}]} if results else {})


def _results(card: dict[str, Any], task: str) -> list[dict[str, Any]]:
    """Return the scores of the last model of each comparison, over whole sets, as the hub has them."""
    found = []
    for report in card["scores"]:
        last = report["rows"][-1]["model"] if report["rows"] else None
        counts: dict[str, list[int]] = {}
        for row in report["rows"]:
            if row["group"] == ALL_GROUPS and row["model"] == last and row["condition"] in OWN_CONDITIONS:
                right = counts.setdefault(row["set"] or report["step"], [0, 0])
                right[0] += row["correct"]
                right[1] += row["total"]
        for name, (correct, total) in counts.items():
            metric = {"type": "accuracy", "name": f"right answers ({last})", "value": round(correct / total, 4)}
            found.append({"task": {"type": task}, "dataset": {"name": name, "type": "custom"}, "metrics": [metric]})
    for report in card["benchmarks"]:
        metrics = [{"type": row["metric"], "value": round(row["value"], 4)} for row in _of_all(report)]
        found.append(
            {"task": {"type": task}, "dataset": {"name": report["title"], "type": "custom"}, "metrics": metrics}
        )
    return found


def _of_all(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of a benchmark that are about all of its questions."""
    return [row for row in report["rows"] if row["group"] == ALL_GROUPS]


def _section(title: str, parts: Sequence[str] | Iterator[str]) -> list[str]:
    filled = [part for part in parts if part]
    return [f"## {title}", *filled] if filled else []


def _opening(card: dict[str, Any]) -> str:
    made = f"Made by mmtune {card['versions']['mmtune']} with the recipe `{card['recipe']}`"
    when = card["finished"] or "not yet"
    return f"{made}, finished {when}. All figures, and every key of the trainings, are in `card.json`."


def _base_models(card: dict[str, Any]) -> list[str]:
    rows = [(model["part"], model["name"], model["hash"][:16]) for model in card["base_models"]]
    return [table(("part", "name", "hash of samples"), rows)]


def _data(card: dict[str, Any]) -> Iterator[str]:
    rows, left_out = [], []
    for training in card["trainings"]:
        for source in training["data"].get("sources", []):
            counts = [_number(source.get(key)) for key in ("num_records", "num_bad_records", "num_samples_in_an_epoch")]
            rows.append((training["step"], source["path"], *counts, str(source.get("content", ""))[:16]))
        if training["num_skipped"]:
            number, of = training["num_skipped"], training["data"].get("num_records")
            left_out.append(f"{inline(training['step'])} left out {number:,} of {_number(of)} records, such as:")
            left_out.append("\n".join(f"- {inline(e['place'])}: {inline(e['reason'])}" for e in training["skipped"]))
    yield table(("training", "source", "records", "left out", "samples an epoch", "hash"), rows)
    yield from left_out or (["No record was left out."] if rows else [])
    checks = [(e["step"], *(_number(e[key]) for key in list(e)[1:])) for e in card["checks"]]
    titles = ("checked for", "records", "bad", "samples", "cut", "images", "warnings")
    yield table(titles, checks)


def _training(card: dict[str, Any], has_plots: bool) -> Iterator[str]:
    trainings = card["trainings"]
    if not trainings:
        return
    rows: list[tuple[Any, ...]] = [
        ("verb", *(training["verb"] for training in trainings)),
        ("optimizer steps", *(_number(training["optimizer_steps"]) for training in trainings)),
        ("seconds", *(_number(round(training["seconds"])) for training in trainings)),
    ]
    for keys in SETTINGS:
        values = [_at(training["config"], keys) for training in trainings]
        if any(value is not None for value in values):
            rows.append((".".join(keys), *("" if value is None else _short(value) for value in values)))
    yield table(("", *(training["step"] for training in trainings)), rows)
    for training in trainings:
        yield from _curves(training, has_plots)


def _curves(training: dict[str, Any], has_plots: bool) -> Iterator[str]:
    name = training["step"]
    if has_plots and training["plot"]:
        yield f"![Loss of {inline(name)}]({training['plot']})"
    for key, what in (("loss", "loss"), ("validation_loss", "validation loss")):
        points = training[key]
        if points:
            shown = thinned(points, NUM_LOSSES)
            losses = ["" if loss is None else f"{loss:.4f}" for _, loss in shown]
            yield table((f"{name}, step", *(str(step) for step, _ in shown)), [(what, *losses)])
    if training["best"]:
        best = training["best"]
        yield f"Best of {inline(name)}: {inline(_short(best))}."


def _scores(card: dict[str, Any]) -> Iterator[str]:
    for report in card["scores"]:
        rows = report["rows"]
        if rows:
            yield f"{inline(report['title'])}: {SCORED}"
        for name in dict.fromkeys(row["set"] for row in rows):
            of_set = [row for row in rows if row["set"] == name]
            yield f"### {inline(name)}, {max(row['total'] for row in of_set)} questions"
            yield score_table(of_set, {row["model"]: row["model"] for row in rows})


def _benchmarks(card: dict[str, Any]) -> list[str]:
    rows = []
    for report in card["benchmarks"]:
        asked = f"{report['num_answered']:,} of {report['num_in_benchmark']:,}"
        for row in _of_all(report):
            is_share = row["low"] is not None
            value = f"{row['value']:.1%}" if is_share else f"{row['value']:,.2f}"
            interval = f"{row['low']:.1%} to {row['high']:.1%}" if is_share else ""
            rows.append((report["title"], report["of"], row["metric"], value, interval, asked))
    return [table(("benchmark", "of", "figure", "value", "95 % interval", "questions asked"), rows)]


def _samples(card: dict[str, Any]) -> Iterator[str]:
    for sample in card["samples"]:
        image = f" (image {sample['image'].rpartition('/')[2]})" if sample["image"] else ""
        lines = [f"**{inline(sample['question'] + image)}**", ""]
        lines += [f"- {inline(name)}: {inline(answer)}" for name, answer in sample["answers"].items()]
        if sample["reference"]:
            lines.append(f"- reference: {inline(' / '.join(sample['reference']))}")
        yield "\n".join(lines)


def _exports(card: dict[str, Any]) -> list[str]:
    rows = [(e["step"], e["format"], e["run"], e["dtype"], e.get("parity", "")) for e in card["exports"]]
    return [table(("step", "format", "of", "dtype", "compared with the run"), rows)]


def _steps(card: dict[str, Any]) -> list[str]:
    rows = [
        (step["name"], step["verb"], step["finished"], (step["inputs"] or "")[:16], (step["weights"] or "")[:16])
        for step in card["steps"]
    ]
    return [table(("step", "verb", "finished", "hash of inputs", "hash of weights"), rows)]


def _number(value: Any) -> str:
    return "" if value is None else f"{value:,}"


def _at(values: Any, keys: Sequence[str]) -> Any:
    for key in keys:
        values = values.get(key) if isinstance(values, dict) else None
    return values


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_short(entry)}" for key, entry in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)
