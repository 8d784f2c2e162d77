"""Where the time of a step goes, for `--phases` of the runners: vision, projector, language model, head, backward.

By hooks on the modules, alike in every tool. Seconds are given by the clock and as processor time, which other programs
on the machine raise less.
"""

import time
from typing import Any

from transformers import TrainerCallback

NAMES = (
    *("data and logging", "vision", "projector", "llm forward", "head, loss and the rest of the forward pass"),
    *("head backward", "other backward and clipping", "optimizer"),
)


class PhaseClock(TrainerCallback):
    """Sums the time of each phase over the steps but the first."""

    def __init__(self) -> None:
        self.sums = {name: [0.0, 0.0] for name in NAMES}
        self.steps = 0
        self.mark = self.inner = (0.0, 0.0)

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Put hooks on the modules."""
        modules = dict(model.named_modules())
        # The shallowest of each: mmtune's names first, then those of LlavaForConditionalGeneration.
        for phase, names in (("vision", ("vision", "vision_tower")), ("projector", _PROJECTORS)):
            found = [name for name in modules if name.rsplit(".", 1)[-1] in names]
            self._time_forward(modules[min(found, key=len)], phase)
        (llm,) = [module for module in modules.values() if type(module).__name__ == "LlamaModel"]
        self._time_forward(llm, "llm forward")
        llm.register_forward_hook(self._watch_gradient)
        model.register_forward_pre_hook(lambda *_: self._begin_forward())
        model.register_forward_hook(lambda *_: self._end_forward())
        self.mark = _now()

    def _time_forward(self, module: Any, phase: str) -> None:
        began: list[tuple[float, float]] = []

        def end(*_: Any) -> None:
            spent = _since(began.pop())
            self._add(phase, spent)
            self.inner = (self.inner[0] + spent[0], self.inner[1] + spent[1])

        module.register_forward_pre_hook(lambda *_: began.append(_now()))
        module.register_forward_hook(end)

    def _begin_forward(self) -> None:
        self.inner, self.mark = (0.0, 0.0), _now()

    def _end_forward(self) -> None:
        whole = _since(self.mark)
        self._add(NAMES[4], (whole[0] - self.inner[0], whole[1] - self.inner[1]))
        self.mark = _now()

    def _watch_gradient(self, module: Any, inputs: Any, output: Any) -> None:
        """The head's backward pass ends when the gradient of the last hidden states is there."""
        output.last_hidden_state.register_hook(lambda _: self._turn("head backward"))

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The batch is there."""
        self._turn("data and logging")

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The gradients are there and clipped."""
        self._turn("other backward and clipping")

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The weights are updated."""
        self._turn("optimizer")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Count the step; what the first one took is dropped."""
        self.steps += 1
        if self.steps == 1:
            self.sums = {name: [0.0, 0.0] for name in NAMES}
        self.mark = _now()

    def _turn(self, phase: str) -> None:
        self._add(phase, _since(self.mark))
        self.mark = _now()

    def _add(self, phase: str, spent: tuple[float, float]) -> None:
        for number in (0, 1):
            self.sums[phase][number] += spent[number]

    def figures(self) -> dict[str, Any]:
        """Return seconds a step and shares of the processor time, and print them."""
        steps = max(1, self.steps - 1)
        total = sum(cpu for _, cpu in self.sums.values())
        figures = {}
        for name, (wall, cpu) in self.sums.items():
            figures[name] = {"wall": round(wall / steps, 3), "cpu": round(cpu / steps, 3)}
            print(f"{name:45}{wall / steps:9.3f} s {cpu / steps:9.3f} s of processor {100 * cpu / total:6.1f} %")
        return figures


_PROJECTORS = ("projector", "multi_modal_projector")


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _since(mark: tuple[float, float]) -> tuple[float, float]:
    now = _now()
    return now[0] - mark[0], now[1] - mark[1]
