"""What is said about scenes: captions, and questions with their answers.

An answer names what it rests on before it decides ("This is a cat, so no."): a small model reads its verdict off its
own words, and an answer that is right by chance is still wrong. Words only: the things are in `scene_things`, the
pictures and files in `scenes`.
"""

import random
from typing import NamedTuple

from mmtune.data.makers.scene_things import THINGS, Thing

NUMBERS = ("zero", "one", "two", "three")
GROUPS = ("what is this", "how many", "background colour", "left or right", "animal", "eat", "is this a", "describe")
TRAINING_WEIGHTS = dict.fromkeys(GROUPS, 1.0) | {"describe": 0.4, "is this a": 2.0}
"""How readily a group is asked in training; fewer scenes fit some groups than others."""


class Scene(NamedTuple):
    """What one image shows: one thing, or several of a kind (`things` repeats it), or two things from left to right."""

    things: tuple[Thing, ...]
    background: str

    @property
    def is_pair(self) -> bool:
        """Whether two different things stand side by side."""
        return len(set(self.things)) > 1


class Turn(NamedTuple):
    """A question about a scene, with its answer."""

    group: str
    question: str
    answer: str


def with_article(name: str) -> str:
    """Puts a or an before a noun."""
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def sentence(text: str) -> str:
    """Makes a sentence: capital letter and full stop."""
    return text[0].upper() + text[1:] + "."


def caption(scene: Scene) -> str:
    """Describes a scene, pairs from left to right: "A dog and an owl on a red background."."""
    first = scene.things[0]
    if scene.is_pair:
        shown = " and ".join(with_article(thing.name) for thing in scene.things)
    else:
        shown = with_article(first.name) if len(scene.things) == 1 else f"{NUMBERS[len(scene.things)]} {first.plural}"
    return sentence(f"{shown} on {with_article(scene.background)} background")


def another_thing(rng: random.Random, scene: Scene) -> Thing:
    """A thing that the scene does not show, half the time of the first thing's category."""
    category = scene.things[0].category if rng.random() < 0.5 else None
    return rng.choice([thing for thing in THINGS if thing not in scene.things and category in (None, thing.category)])


def ask(rng: random.Random, scene: Scene, group: str, wanted: bool | None = None) -> Turn | None:
    """Asks one question of a group about a scene, or None where it does not fit.

    Args:
        rng: draws the wording and what is asked for.
        scene: what the image shows.
        group: one of `GROUPS`.
        wanted: the answer that a yes/no question must have, so that callers can balance them; None takes either.
    """
    first, is_one = scene.things[0], len(scene.things) == 1
    if group == "background colour":
        question = rng.choice(("What colour is the background?", "Which colour is behind it?"))
        return Turn(group, question, sentence(f"{with_article(scene.background)} background"))
    if group == "describe":
        return Turn(group, rng.choice(("Describe it.", "Describe the image.")), caption(scene))
    if group == "how many":
        return _ask_how_many(rng, scene)
    if group == "left or right" and scene.is_pair:
        return _ask_place(rng, scene)
    if not is_one:
        return None
    if group == "what is this":
        return Turn(group, rng.choice(("What is this?", "Which thing is this?")), sentence(with_article(first.name)))
    if group == "is this a":
        truth = rng.random() < 0.5 if wanted is None else wanted
        asked = first if truth else another_thing(rng, scene)
        verdict = "yes" if truth else "no"
        return Turn(group, f"Is this {with_article(asked.name)}?", f"This is {with_article(first.name)}, so {verdict}.")
    is_animal = first.category == "animal"
    if group == "animal" and wanted in (None, is_animal):
        return Turn(group, "Is it an animal?", _verdict(first, is_animal))
    if group == "eat" and first.is_edible is not None and wanted in (None, first.is_edible):
        return Turn(group, "Can you eat it?", _verdict(first, first.is_edible))
    return None


def _verdict(thing: Thing, truth: bool) -> str:
    """Name the thing, what kind it is, and what follows: "A car is a vehicle, so no."."""
    kind = thing.category if thing.category == "food" else with_article(thing.category)
    return sentence(f"{with_article(thing.name)} is {kind}, so {'yes' if truth else 'no'}")


def _ask_how_many(rng: random.Random, scene: Scene) -> Turn:
    first, asks_all = scene.things[0], rng.random() < 0.5
    if asks_all and scene.is_pair:
        return Turn("how many", "How many things are there?", "Two things.")
    count = 1 if scene.is_pair else len(scene.things)
    noun = "things" if asks_all else first.plural
    counted = first.name if count == 1 else first.plural
    return Turn("how many", f"How many {noun} are there?", sentence(f"{NUMBERS[count]} {counted}"))


def _ask_place(rng: random.Random, scene: Scene) -> Turn:
    left, right = (thing.name for thing in scene.things)
    if rng.random() < 0.5:
        order = f"From left to right: {with_article(left)} and {with_article(right)}."
        return Turn("left or right", f"Where is the {rng.choice((left, right))}?", order)
    place, name = rng.choice((("left", left), ("right", right)))
    return Turn("left or right", f"What is on the {place}?", sentence(with_article(name)))


def make_turns(rng: random.Random, scene: Scene, num_turns: int) -> list[Turn]:
    """Makes a dialogue of at most `num_turns` turns, no question twice."""
    groups = sorted(TRAINING_WEIGHTS, key=lambda group: rng.random() ** (1 / TRAINING_WEIGHTS[group]), reverse=True)
    turns = {turn.question: turn for group in groups for turn in _training_turns(rng, scene, group)}
    return list(turns.values())[:num_turns]


def _training_turns(rng: random.Random, scene: Scene, group: str) -> list[Turn]:
    count = 2 if group == "left or right" else 1
    return [turn for turn in (ask(rng, scene, group) for _ in range(count)) if turn is not None]
