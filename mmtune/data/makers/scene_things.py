"""The things and backgrounds that scenes show: their names, their pictures among the Twemoji, and what is true of them.

Only tables live here. Pictures: Twemoji (https://github.com/jdecked/twemoji), CC-BY 4.0.
"""

from typing import NamedTuple


class Thing(NamedTuple):
    """One kind of thing.

    Attributes:
        name: singular noun, as in captions.
        plural: plural noun.
        code: Unicode code point of its emoji, the stem of the Twemoji file.
        category: animal, food, vehicle or object.
        is_edible: whether one can eat it; None where people would disagree, so nobody asks.
    """

    name: str
    plural: str
    code: str
    category: str
    is_edible: bool | None


def _things(category: str, is_edible: bool | None, table: str) -> tuple[Thing, ...]:
    """Reads entries "code name" or "code name/plural", parted by commas; the default plural adds an s."""
    things = []
    for entry in table.split(","):
        code, names = entry.split()
        name, _, plural = names.partition("/")
        things.append(Thing(name, plural or name + "s", code, category, is_edible))
    return tuple(things)


THINGS: tuple[Thing, ...] = (
    *_things("animal", False, "1f415 dog, 1f408 cat, 1f418 elephant, 1f427 penguin, 1f989 owl, 1f40d snake"),
    *_things("animal", False, "1f98b butterfly/butterflies, 1f981 lion, 1f412 monkey, 1f577 spider"),
    *_things("animal", None, "1f416 pig, 1f407 rabbit, 1f422 turtle, 1f980 crab, 1f40c snail"),
    *_things("food", True, "1f34e apple, 1f34c banana, 1f34a orange, 1f353 strawberry/strawberries, 1f955 carrot"),
    *_things("food", True, "1f34d pineapple, 1f349 watermelon, 1f355 pizza, 1f344 mushroom"),
    *_things("vehicle", False, "1f697 car, 1f6b2 bicycle, 2708 airplane, 1f680 rocket, 26f5 boat, 1f682 train"),
    *_things("object", False, "1f4d5 book, 1f511 key, 2614 umbrella, 1f3a9 hat, 1f3b8 guitar, 1f388 balloon"),
    *_things("object", False, "1f514 bell, 1f451 crown, 1f333 tree, 1f3e0 house, 26bd ball, 1fa91 chair"),
)

# Never trained on: what a model makes of them is reported apart.
UNSEEN_THINGS: tuple[Thing, ...] = (
    *_things("animal", False, "1f43a wolf/wolves, 1f993 zebra, 1f42c dolphin, 1f428 koala"),
    *_things("food", True, "1f352 cherry/cherries, 1f345 tomato/tomatoes, 1f95d kiwi"),
    *_things("vehicle", False, "1f691 ambulance, 1f695 taxi, 1f6a2 ship"),
    *_things("object", False, "1f3bb violin, 23f0 clock, 1f335 cactus/cactuses, 270f pencil"),
)

BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "red": (225, 20, 20),
    "green": (20, 170, 40),
    "blue": (30, 50, 220),
    "yellow": (250, 230, 30),
    "purple": (120, 30, 150),
    "pink": (255, 150, 200),
    "white": (255, 255, 255),
    "black": (10, 10, 10),
}
