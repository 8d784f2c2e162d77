"""What is said about scenes: captions, and questions with their answers.

Words only: the things are in `scene_things`, the pictures and files in `scenes`.
"""

import random
from typing import NamedTuple

from mmtune.data.makers.scene_things import THINGS, Thing

NUMBERS = ("zero", "one", "two", "three")
GROUPS = ("what is this", "how many", "background colour", "left or right", "animal", "eat", "is this a", "describe")


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


def yes_no(truth: bool) -> str:
    """The answer to a question of truth."""
    return "Yes." if truth else "No."


def another_thing(rng: random.Random, scene: Scene) -> Thing:
    """A thing that the scene does not show, half the time of the first thing's category."""
    category = scene.things[0].category if rng.random() < 0.5 else None
    return rng.choice([thing for thing in THINGS if thing not in scene.things and category in (None, thing.category)])


def yes_share(group: str) -> float:
    """How often to want a yes, so that yes and no are asked equally often though fewer things are animals or food."""
    if group == "animal":
        truths = [thing.category == "animal" for thing in THINGS]
    elif group == "eat":
        truths = [thing.is_edible for thing in THINGS if thing.is_edible is not None]
    else:
        return 0.5
    return truths.count(False) / len(truths)


def ask(rng: random.Random, scene: Scene, group: str, wanted: bool) -> Turn | None:
    """Asks one question of a group about a scene, or None where it does not fit.

    Args:
        rng: draws the wording and what is asked for.
        scene: what the image shows.
        group: one of `GROUPS`.
        wanted: the answer that a yes/no question is to have, so that callers can balance them.
    """
    first, is_one = scene.things[0], len(scene.things) == 1
    if group == "background colour":
        question = rng.choice(("What colour is the background?", "Which colour is behind it?"))
        return Turn(group, question, sentence(scene.background))
    if group == "describe":
        return Turn(group, rng.choice(("Describe it.", "Describe the image.")), caption(scene))
    if group == "how many":
        return _ask_how_many(rng, scene)
    if group == "left or right" and scene.is_pair:
        return _ask_place(rng, scene)
    if not is_one:
        return None
    if group == "is this a":
        asked = first if wanted else another_thing(rng, scene)
        return Turn(group, f"Is this {with_article(asked.name)}?", yes_no(wanted))
    if group == "what is this":
        return Turn(group, rng.choice(("What is this?", "Which thing is this?")), sentence(with_article(first.name)))
    if group == "animal" and wanted == (first.category == "animal"):
        return Turn(group, "Is it an animal?", yes_no(wanted))
    if group == "eat" and wanted == first.is_edible:
        return Turn(group, "Can you eat it?", yes_no(wanted))
    return None


def _ask_how_many(rng: random.Random, scene: Scene) -> Turn:
    asks_all = rng.random() < 0.5
    noun = "things" if asks_all else scene.things[0].plural
    count = 1 if scene.is_pair and not asks_all else len(scene.things)
    return Turn("how many", f"How many {noun} are there?", sentence(NUMBERS[count]))


def _ask_place(rng: random.Random, scene: Scene) -> Turn:
    place, thing = rng.choice((("left", scene.things[0]), ("right", scene.things[1])))
    if rng.random() < 0.5:
        return Turn("left or right", f"What is on the {place}?", sentence(with_article(thing.name)))
    return Turn("left or right", f"Where is the {thing.name}?", f"On the {place}.")


def make_turns(rng: random.Random, scene: Scene, num_turns: int) -> list[Turn]:
    """Makes a dialogue of at most `num_turns` turns, each of another group."""
    groups = rng.sample(GROUPS, len(GROUPS))
    turns = (ask(rng, scene, group, wanted=rng.random() < yes_share(group)) for group in groups)
    return [turn for turn in turns if turn is not None][:num_turns]
