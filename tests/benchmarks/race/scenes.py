"""Pictures that are drawn here and what can be said about them. Files, models and tools: `workload.py`."""

import random
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

COLOURS = {
    "red": (205, 44, 40),
    "green": (52, 150, 70),
    "blue": (48, 86, 190),
    "yellow": (236, 200, 60),
    "purple": (128, 62, 160),
    "orange": (236, 130, 40),
    "white": (245, 245, 245),
    "black": (25, 25, 25),
}
KINDS = ("circle", "square", "triangle", "diamond", "ring", "bar")
PLACES = (
    *("at the top left", "at the top", "at the top right"),
    *("on the left", "in the middle", "on the right"),
    *("at the bottom left", "at the bottom", "at the bottom right"),
)
MANNERS = ("small", "large", "bright", "faded")
Scene = list[tuple[int, str, str, str]]
"""Cell, manner, colour and kind of each thing, in the order of the cells."""


def make_scene(rng: random.Random) -> Scene:
    """Draw lots for 1 to 9 things, few more often than many."""
    cells = sorted(rng.sample(range(9), min(9, 1 + int(rng.expovariate(1 / 5)))))
    return [(cell, rng.choice(MANNERS), rng.choice(list(COLOURS)), rng.choice(KINDS)) for cell in cells]


def draw(scene: Scene, side: int, path: Path, seed: int) -> None:
    """Write a square JPEG of `side` pixels: the things on a smooth ground under fine noise."""
    rng = np.random.default_rng(seed)
    ground = Image.fromarray(rng.integers(90, 190, (6, 6, 3), dtype=np.uint8))
    image = ground.resize((side, side), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    for cell, manner, colour, kind in scene:
        half = side // 6 * (0.4 if manner == "small" else 0.8)
        x, y = (cell % 3 + 0.5) * side / 3, (cell // 3 + 0.5) * side / 3
        strength = 0.5 if manner == "faded" else 1.0
        fill = tuple(int(strength * value + (1 - strength) * 140) for value in COLOURS[colour])
        _draw_thing(pen, kind, x, y, half, fill)
    pixels = np.asarray(image, dtype=np.float32) + rng.normal(0, 5, (side, side, 1)).astype(np.float32)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, "JPEG", quality=90)


def _draw_thing(pen: ImageDraw.ImageDraw, kind: str, x: float, y: float, half: float, fill: tuple) -> None:
    box = (x - half, y - half, x + half, y + half)
    if kind == "circle":
        pen.ellipse(box, fill=fill)
    elif kind == "ring":
        pen.ellipse(box, outline=fill, width=max(2, int(half / 3)))
    elif kind == "square":
        pen.rectangle(box, fill=fill)
    elif kind == "bar":
        pen.rectangle((x - half, y - half / 4, x + half, y + half / 4), fill=fill)
    elif kind == "triangle":
        pen.polygon([(x, y - half), (x + half, y + half), (x - half, y + half)], fill=fill)
    else:
        pen.polygon([(x, y - half), (x + half, y), (x, y + half), (x - half, y)], fill=fill)


def caption(scene: Scene) -> tuple[str, str]:
    """Return a request and the description of a whole scene."""
    sentences = [f"There is a {manner} {colour} {kind} {PLACES[cell]}." for cell, manner, colour, kind in scene]
    return "Describe the picture.", " ".join([f"Things on a soft ground, {len(scene)} in all.", *sentences])


def question(scene: Scene, rng: random.Random) -> tuple[str, str]:
    """Return a question about a scene and its answer: short, middling or, half of the time, long."""
    kind_of_question = rng.choice(("colour", "compare", "list", "list"))
    cell, manner, colour, kind = rng.choice(scene)
    if kind_of_question == "colour":
        return f"Which colour does the {kind} {PLACES[cell]} have?", f"{colour.capitalize()}."
    if kind_of_question == "compare":
        other_cell, _, other_colour, other = rng.choice(scene)
        asked = f"What is {PLACES[cell]} of the picture and what is {PLACES[other_cell]}? Do they share a colour?"
        verdict = "they share a colour" if colour == other_colour else "they do not share a colour"
        first, second = f"a {manner} {colour} {kind} {PLACES[cell]}", f"a {other_colour} {other} {PLACES[other_cell]}"
        return asked, f"There is {first} and {second}, so {verdict}."
    things = [f"{a_manner} {a_colour} {a_kind} {PLACES[a_cell]}" for a_cell, a_manner, a_colour, a_kind in scene]
    asked = "List all things that you see with their size, colour and place, row by row, from the top to the bottom."
    return asked, f"I see {len(things)} in all: " + "; ".join(f"a {thing}" for thing in things) + "."
