"""What a config says of evaluation: held-out data, the metric that decides, early stopping, sample answers."""

import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

from mmtune.lookup import nearest
from mmtune.schema import Config, DataConfig, DataSource, SampleConfig, TrainConfig

HELD_OUT_METRICS = ("loss", "perplexity", "token_accuracy")
"""Of all validation data as `eval_loss`; of one of several sources as `eval_SOURCE_loss`."""

TRAINING_METRICS = ("train_loss", "grad_norm")
"""Means over the steps since the evaluation before."""

Question = tuple[str, tuple[str, ...]]


def has_validation(data: DataConfig) -> bool:
    """Whether some data is measured and not trained."""
    return bool(data.validation) or data.validation_fraction is not None


def criterion(train: TrainConfig) -> str | None:
    """Return the metric that decides which checkpoint is the best; None: no one asks."""
    if train.metric_for_best_model is None and (train.load_best_model_at_end or train.early_stopping_patience):
        return "eval_loss"
    return train.metric_for_best_model


def is_greater_better(train: TrainConfig) -> bool:
    """Whether a larger criterion is a better one."""
    if train.greater_is_better is not None:
        return train.greater_is_better
    return (criterion(train) or "").endswith("accuracy")


def evaluates(config: Config) -> bool:
    """Whether a run is measured while it trains."""
    return has_validation(config.data) or criterion(config.train) is not None


def steps_between_evaluations(train: TrainConfig) -> int:
    """Return after how many optimizer steps a run is measured again; 0: only at the end."""
    return train.save_steps if train.eval_steps is None else train.eval_steps


def source_names(sources: Sequence[DataSource]) -> list[str]:
    """Return what metrics call each source: the name of its file; a second one of that name has a number.

    Worked example: `a/coco.json#500`, `b/coco.jsonl` and `hub:owner/gqa` are `coco`, `coco_2` and `gqa`.
    """
    names: list[str] = []
    for source in sources:
        stem = PurePosixPath(re.sub(r"#\d+$", "", source.path).replace("\\", "/")).stem
        name = re.sub(r"\W+", "_", stem).strip("_") or "source"
        numbered = (name if number == 1 else f"{name}_{number}" for number in itertools.count(1))
        names.append(next(each for each in numbered if each not in names))
    return names


def metric_names(data: DataConfig) -> list[str]:
    """Return all metrics that a run with this data can be judged by."""
    names = list(TRAINING_METRICS)
    if has_validation(data):
        sources = data.validation or data.train
        prefixes = ["eval", *(f"eval_{name}" for name in source_names(sources) if len(sources) > 1)]
        names = [f"{prefix}_{metric}" for prefix in prefixes for metric in HELD_OUT_METRICS] + names
    return names


def questions_of(sample: SampleConfig) -> list[Question]:
    """Return each question with its images: a text with each of `images`, or alone without any; a pair as it is."""
    found: list[Question] = []
    for entry in sample.questions:
        if isinstance(entry, str):
            found += [(entry, (image,)) for image in sample.images] or [(entry, ())]
        else:
            image = entry.get("image")
            found.append((entry["question"], tuple(image) if isinstance(image, list) else (image,) if image else ()))
    return found


def wrong_evaluation(config: Config) -> Iterator[str]:
    """Yield what is wrong with the keys of evaluation, each as a sentence with the mend."""
    yield from _wrong_validation(config.data)
    yield from _wrong_criterion(config)
    if config.train.eval_on_start and not has_validation(config.data):
        yield f"'train.eval_on_start' measures held-out data.{_NO_DATA}"
    if config.sample is not None:
        yield from _wrong_sample(config.sample, has_vision=config.model.vision is not None)


def _wrong_validation(data: DataConfig) -> Iterator[str]:
    fraction = data.validation_fraction
    if fraction is not None:
        if not 0 < fraction < 1:
            yield f"'data.validation_fraction' must be above 0 and below 1 (got {fraction}). 0.05 holds out 5 %."
        if data.validation:
            yield "'data.validation' and 'data.validation_fraction' do not go together. Set one of them."
        if any(source.stream for source in data.train):
            yield "'data.validation_fraction' needs all samples before training. Name files as data.validation instead."
    for number, source in enumerate(data.validation):
        place = f"data.validation[{number}]"
        if source.stream:
            yield f"'{place}.stream': validation data is read as a whole. Leave stream out."
        if source.limit is not None and source.limit < 1:
            yield f"'{place}.limit' must be greater than 0 (got {source.limit})."
        for key, value, off in (("repeat", source.repeat, 1.0), ("weight", source.weight, None)):
            if value != off:
                yield f"'{place}.{key}' is for trained data (got {value}): each sample is measured once. Leave it out."


def _wrong_criterion(config: Config) -> Iterator[str]:
    train, metric = config.train, criterion(config.train)
    if metric is None:
        if train.greater_is_better is not None:
            yield "'train.greater_is_better' is of 'train.metric_for_best_model', which is not set. Set both, or none."
        return
    known = metric_names(config.data)
    if metric == "loss":
        yield "'train.metric_for_best_model: loss' may be eval_loss or train_loss. Write the one that is meant."
    elif metric not in known:
        why = "" if has_validation(config.data) or not metric.startswith("eval_") else _NO_DATA
        listed = f" Known: {', '.join(known)}."
        given = "" if train.metric_for_best_model else ", which is eval_loss where it is not set,"
        yield f"'train.metric_for_best_model'{given} has no metric '{metric}'.{why or nearest(metric, known)}{listed}"
    between = steps_between_evaluations(train)
    if metric in TRAINING_METRICS and between % max(train.logging_steps, 1):
        steps = f"logging_steps={train.logging_steps}, evaluation every {between} steps"
        yield f"'train.logging_steps' must fit evaluations by {metric}: they average what is logged ({steps}). Set 1."
    if train.early_stopping_patience is not None and not between:
        yield "'train.early_stopping_patience' needs evaluations while training. Set train.eval_steps."


_NO_DATA = " Nothing is held out: give data.validation or data.validation_fraction."


def _wrong_sample(sample: SampleConfig, *, has_vision: bool) -> Iterator[str]:
    if not sample.questions:
        yield "'sample.questions' asks nothing. Give it as a list: [\"What do you see?\"]."
    is_asked = False
    for number, entry in enumerate(sample.questions):
        place = f"sample.questions[{number}]"
        reason = _wrong_question(entry)
        if reason is not None:
            yield f"'{place}' {reason}"
            return
        is_asked = is_asked or isinstance(entry, str)
    if sample.images and not is_asked:
        yield "'sample.images' are shown by no question: all name their own. Drop them, or add a question as a text."
    if not has_vision and any(images for _, images in questions_of(sample)):
        yield "'sample' shows images, and this model has no 'model.vision'. Ask about text alone."


def _wrong_question(entry: Any) -> str | None:
    """Say what is wrong with an entry of `sample.questions`."""
    if not isinstance(entry, str):
        if not isinstance(entry, dict) or not isinstance(entry.get("question"), str):
            return f"must be a text, or a mapping with a question (got {entry!r:.80})."
        unknown = sorted(map(str, entry.keys() - {"question", "image"}))
        if unknown:
            return f"has an unknown key '{unknown[0]}'. Known: question, image."
        image = entry.get("image")
        images = image if isinstance(image, list) else [image]
        if not all(isinstance(each, str) for each in images) and image is not None:
            return f"has an image that is no path (got {image!r:.80}). Name a file, a list of files, or null."
        entry = entry["question"]
    if not entry.strip():
        return "is empty. Ask something."
    if "<image>" in entry:
        return "spells '<image>', which is text here. Write {question: ..., image: PATH}, or list sample.images."
    return None
