"""The settings of the tab to talk in: the system message, and how answers are chosen, as `/params` takes them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import gradio as gr

from mmtune.chat.generate import Decoding
from mmtune.serve.web_labels import Labels, say
from mmtune.serve.web_models import Side

MAX_SYSTEM = 8000
"""Characters of a system message."""
SLIDERS = {
    "temperature": (0.0, 2.0, 0.05),
    "max_new_tokens": (1, 2048, 1),
    "top_p": (0.05, 1.0, 0.05),
    "top_k": (0, 200, 1),
    "repetition_penalty": (1.0, 2.0, 0.05),
}
"""Name of `PARAMS` -> lowest, highest, step."""
WITHOUT_INFO = ("max_new_tokens",)


@dataclass(frozen=True)
class Settings:
    """The components.

    Attributes:
        system: the system message; None where the model's template has no place for one.
        params: by name.
    """

    system: gr.Textbox | None
    params: dict[str, Any]

    @property
    def components(self) -> list[Any]:
        """All of them, in the order that `words_of` takes their values."""
        return [*([self.system] if self.system else []), *self.params.values()]


def add_settings(sides: Sequence[Side], decoding: Decoding, seed: int, labels: Labels) -> Settings:
    """Put the settings, folded, where the page is.

    Args:
        sides: who answers.
        decoding: how answers are chosen, to begin with.
        seed: of draws, to begin with.
        labels: told what follows the language.
    """
    with gr.Accordion(labels.first(say("settings")), open=False, elem_id="settings") as fold:
        system = None
        if all(side.parts.template.system is not None for side in sides):
            label, info = labels.first(say("system")), labels.first(say("system_info"))
            system = gr.Textbox(sides[0].system or "", label=label, info=info, lines=2, elem_id="system")
            labels.add(system, label=say("system"), info=say("system_info"))
        with gr.Row():
            params: dict[str, Any] = {name: _slider(name, asdict(decoding)[name], labels) for name in SLIDERS}
            label, info = labels.first(say("seed")), labels.first(say("seed_info"))
            params["seed"] = gr.Number(seed, label=label, info=info, precision=0, min_width=280, elem_id="param-seed")
            labels.add(params["seed"], label=say("seed"), info=say("seed_info"))
    labels.add(fold, label=say("settings"))
    return Settings(system, params)


def _slider(name: str, value: float, labels: Labels) -> gr.Slider:
    low, high, step = SLIDERS[name]
    said = {"label": say(name)} | ({} if name in WITHOUT_INFO else {"info": say(f"{name}_info")})
    first = {key: labels.first(one) for key, one in said.items()}
    slider = gr.Slider(
        min(low, value), max(high, value), value, step=step, label=first["label"], info=first.get("info"),
        min_width=280, elem_id=f"param-{name.replace('_', '-')}",
    )  # fmt: skip
    return labels.add(slider, **said)


def words_of(settings: Settings, values: Sequence[Any]) -> tuple[str | None, str]:
    """Return the system message, None where there is no place for one, and the rest as `/params` takes it.

    Args:
        settings: the components.
        values: of them, as a browser sent them: they may be anything.
    """
    system = str(values[0] or "")[:MAX_SYSTEM] if settings.system else None
    chosen = values[1:] if settings.system else values
    return system, " ".join(f"{name}={_word(value)}" for name, value in zip(settings.params, chosen, strict=True))


def _word(value: Any) -> str:
    """A value as one word; a whole number without the point that a slider of whole numbers may send."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "".join(str(value).split())[:20] or "-"
