"""A training run as HTML: state, curves, answers while training, alarms, card. All texts are escaped."""

import base64
import io
from collections.abc import Sequence
from functools import lru_cache
from html import escape
from pathlib import Path

from PIL import Image

from mmtune.conversation import ImageSlot
from mmtune.data.image_files import open_image
from mmtune.errors import MMTuneError
from mmtune.evaluate.questions import thinned
from mmtune.serve.run_card import card_rows
from mmtune.serve.run_view import RunView, Samples
from mmtune.serve.web_curves import Curve, chart, figure
from mmtune.serve.web_text import text
from mmtune.training.plot import running_mean
from mmtune.training.progress_bar import duration

STATES = {"running": "running", "complete": "complete", "stopped": "incomplete"}
MOST_ANSWERS = 12
"""To a question, spread evenly; the first and the last among them."""
MOST_QUESTIONS = 20
MOST_ALARMS = 10
THUMBNAIL = 160


def run_page(run: RunView, language: str) -> str:
    """Return all that the page shows of a run."""
    parts = [_head(run, language), _curves(run, language)]
    parts += [_alarms(run, language), _samples(run.samples(), run, language), _card(run, language)]
    return f'<div class="run">{"".join(parts)}</div>'


def _head(run: RunView, language: str) -> str:
    def say(key: str) -> str:
        return text(key, language)

    facts = [f'<span class="state {run.state}">{escape(say(STATES[run.state]))}</span>']
    if not run.entries:
        return f'<p class="facts">{facts[0]} <span>{escape(say("no_steps"))}</span></p>'
    total, took = run.total_steps, duration(run.manifest.get("train_seconds", run.seconds))
    step = (
        say("step_of").format(step=f"{run.step:,}", total=f"{total:,}") if total else say("step").format(step=run.step)
    )
    words = [step, say("took" if run.state == "complete" else "time_taken").format(time=took)]
    if run.seconds_left is not None:
        words.append(say("time_left").format(time=duration(run.seconds_left)))
    losses = run.curve("loss")
    if losses:
        words.append(f"{say('loss')}: {figure(losses[-1][1])}")
    facts += [f"<span>{escape(word)}</span>" for word in words]
    bar = "" if run.share_done is None else f'<progress max="1" value="{run.share_done:.4f}"></progress>'
    return f'<p class="facts">{" ".join(facts)}</p>{bar}'


def _curves(run: RunView, language: str) -> str:
    def say(key: str) -> str:
        return text(key, language)

    losses = run.curve("loss")
    means = running_mean([loss for _, loss in losses]) if losses else []
    smooth = [(step, mean) for (step, _), mean in zip(losses, means, strict=True)]
    held_out = Curve(say("held_out"), run.curve("eval_loss"), "dots")
    step = say("optimizer_step")
    charts = [
        chart(say("loss"), [Curve(say("each_step"), losses, "pale"), Curve(say("mean"), smooth), held_out], step),
        chart(say("accuracy"), [Curve("", run.curve("eval_token_accuracy"), "dots")], step),
        chart(say("rate"), [Curve("", run.curve("learning_rate"))], step),
        chart(say("grad_norm"), [Curve("", run.curve("grad_norm"))], step),
    ]
    return f'<div class="charts">{"".join(charts)}</div>'


def _alarms(run: RunView, language: str) -> str:
    if not run.alarms:
        return ""
    shown = "".join(
        f"<li>{escape(str(entry['step']))}: {escape(str(entry.get('message', entry['alarm'])))}</li>"
        for entry in run.alarms[-MOST_ALARMS:]
    )
    return f'<section class="alarms"><h3>{escape(text("alarms", language))}</h3><ul>{shown}</ul></section>'


def _samples(samples: Sequence[Samples], run: RunView, language: str) -> str:
    if not samples:
        return ""
    shown = "".join(_sample(sample, language) for sample in samples[:MOST_QUESTIONS])
    return f'<section class="samples"><h3>{escape(text("samples", language))}</h3><div>{shown}</div></section>'


def _sample(sample: Samples, language: str) -> str:
    pictures = "".join(_picture(path) for path in sample.images)
    rows = "".join(
        f"<tr><td>{step:,}</td><td>{escape(answer) or escape(text('no_answer', language))}</td></tr>"
        for step, answer in thinned(sample.answers, MOST_ANSWERS)
    )
    head = (
        f"<tr><th>{escape(text('samples_step', language))}</th><th>{escape(text('samples_answer', language))}</th></tr>"
    )
    return f"<article>{pictures}<p>{escape(sample.question)}</p><table>{head}{rows}</table></article>"


def _picture(path: str) -> str:
    name = escape(Path(path).name)
    address = _thumbnail(path, Path(path).stat().st_mtime_ns) if Path(path).is_file() else None
    return f'<img src="{address}" alt="{name}" title="{name}">' if address else f'<p class="missing">{name}</p>'


@lru_cache(maxsize=256)
def _thumbnail(path: str, written_ns: int) -> str | None:
    """A small copy of an image that a run asks about, inside the page: no file of the run is served."""
    try:
        image = open_image(ImageSlot(path))
    except MMTuneError:
        return None
    image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _card(run: RunView, language: str) -> str:
    rows = "".join(
        f"<tr><th>{escape(text(f'card_{key}', language))}</th><td>{escape(words)}</td></tr>"
        for key, words in card_rows(run)
    )
    title = escape(text("card", language))
    return f'<section class="card"><h3>{title}</h3><table>{rows}</table></section>' if rows else ""
