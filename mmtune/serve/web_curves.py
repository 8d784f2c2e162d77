"""Curves of a run as SVG: drawn on the server, no script, coloured by the page's style. Values come from outside."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from mmtune.training.plot import drawn_places

WIDTH, HEIGHT = 480, 210
LEFT, RIGHT, TOP, BOTTOM = 50, 12, 10, 26
ROOM_FOR_LABEL = 20
MOST_POINTS = 600
"""Of a line: more are drawn over each other."""

Points = Sequence[tuple[int, float]]


@dataclass(frozen=True)
class Curve:
    """One line of a chart.

    Attributes:
        name: in the legend; empty where the title says it.
        points: step and value.
        kind: its class in the style sheet: `pale`, `strong`, or `dots` with a mark at each point.
    """

    name: str
    points: Points
    kind: str = "strong"


def chart(title: str, curves: Sequence[Curve], x_label: str, *, from_zero: bool = True) -> str:
    """Return a chart as HTML: title, legend with the last value of each curve, axes, curves. Texts are escaped.

    Args:
        title: above.
        curves: those without a point are left out; without any, nothing is drawn.
        x_label: of the axis below.
        from_zero: whether the axis of values begins at 0.
    """
    drawn = [curve for curve in curves if curve.points]
    if not drawn:
        return ""
    steps = [step for curve in drawn for step, _ in curve.points]
    values = [value for curve in drawn for _, value in curve.points]
    low, high = (0.0 if from_zero else min(values)), max(values)
    scale = _Scale(min(steps), max(steps), low, high if high > low else low + (abs(low) or 1.0))
    legend = "".join(
        f'<span class="{curve.kind}"><i></i>{_named(curve.name)}<b>{figure(curve.points[-1][1])}</b></span>'
        for curve in drawn
    )
    lines = "".join(_line(curve, scale) for curve in drawn)
    return (
        f'<figure class="curves"><figcaption><strong>{escape(title)}</strong>{legend}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"{_axes(scale, x_label)}{lines}</svg></figure>"
    )


def _named(name: str) -> str:
    return f"{escape(name)} " if name else ""


@dataclass(frozen=True)
class _Scale:
    """From steps and values to places in the picture."""

    first: int
    last: int
    low: float
    high: float

    def x(self, step: float) -> float:
        width = WIDTH - LEFT - RIGHT
        return LEFT + (width / 2 if self.last == self.first else width * (step - self.first) / (self.last - self.first))

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - self.low) / (self.high - self.low)


def _axes(scale: _Scale, x_label: str) -> str:
    parts = []
    for value in ticks(scale.low, scale.high, 5):
        y = scale.y(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{figure(value)}</text>')
    for step in ticks(scale.first, scale.last, 6):
        if step == int(step) and scale.x(step) - LEFT > ROOM_FOR_LABEL:
            parts.append(f'<text x="{scale.x(step):.1f}" y="{HEIGHT - 8}" text-anchor="middle">{int(step):,}</text>')
    parts.append(f'<text class="label" x="{LEFT}" y="{HEIGHT - 8}" text-anchor="end">{escape(x_label)}</text>')
    return "".join(parts)


def _line(curve: Curve, scale: _Scale) -> str:
    kept = [curve.points[number] for number in drawn_places(len(curve.points), MOST_POINTS)]
    places = [(scale.x(step), scale.y(value)) for step, value in kept]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    line = f'<polyline class="{curve.kind}" points="{path}"/>'
    marked = places if curve.kind == "dots" or len(places) == 1 else []
    return line + "".join(f'<circle class="{curve.kind}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in marked)


def ticks(low: float, high: float, count: int) -> list[float]:
    """Return about `count` round numbers from `low` to `high`.

    >>> ticks(0, 4.4, 5), ticks(1, 90, 6)
    ([0.0, 1.0, 2.0, 3.0, 4.0], [20.0, 40.0, 60.0, 80.0])
    """
    if not high > low:
        return [float(low)]
    rough = (high - low) / count
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def figure(value: float) -> str:
    """Return a value in few characters: `0`, `2.31`, `0.047`, `1.5e-4`, `12,300`."""
    if value == 0:
        return "0"
    size = abs(value)
    if size < 0.001:
        return f"{value:.1e}".replace("e-0", "e-").replace(".0e", "e")
    if size >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"
