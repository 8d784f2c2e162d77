"""A comparison as one HTML file that needs nothing else: no server, no network, no second file.

What the page says is prepared here; its words, its looks and its buttons are page.html, page.css and
page.js beside this file. Asking and scoring the models is not done here.
"""

import base64
import functools
import hashlib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader
from markupsafe import Markup

from mmtune.errors import MMTuneError
from mmtune.evaluate.page_cards import (
    UNSEEN_SET,
    card_filters,
    control_label,
    count_dependence,
    data_uri,
    make_card,
    pick_example,
    split_controls,
)
from mmtune.evaluate.questions import spread

TEXT_SET = "text questions"
PICTURE_WIDTH = 256
PLOT_WIDTH = 1200
NUM_CARDS_FIRST = 60
NUM_CARDS_MOST = 1200
NUM_CHARACTERS_FIRST = 170
SPELLED_CONTROLS = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"}


@dataclass(frozen=True)
class Cell:
    """The scores of one model on one group; a score is a dict of the report.

    Attributes:
        main: the score when asked in earnest; None if there is none.
        controls: the scores with a picture that is not the question's own.
    """

    main: dict[str, Any] | None
    controls: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Table:
    """The scores of one set of questions: per group, one cell for each model (before first, after last)."""

    name: str
    rows: dict[str, list[Cell]]

    @property
    def overall(self) -> list[Cell]:
        """The row over all groups; empty if it was not scored."""
        return self.rows.get("all", [])


def write_page(report: dict[str, Any], path: Path, image_root: Path | None = None) -> None:
    """Writes the report of a comparison as one HTML page with everything inside.

    Every part of the report may be missing: the page then says less. A picture or plot that cannot be read
    leaves a labelled gap. Of more than `NUM_CARDS_MOST` questions the page scores all and shows so many, spread evenly,
    since a browser bears no more. All text is escaped, and the page's own content policy forbids any request.

    Args:
        report: `title`, `created`, `versions`, `models` (before first, after last), `scores`, `retention`,
            `times`, `plots`, `questions` and `credits`, as plain JSON values.
        path: the HTML file to write; its folder is made if need be.
        image_root: where relative picture paths start; the working directory if None.

    Raises:
        MMTuneError: when the file cannot be written.
    """
    html = render_page(report, image_root or Path())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(html.encode("utf-8", errors="replace"))
    except OSError as error:
        raise MMTuneError(path, f"cannot be written ({error.strerror}). Choose another place.") from error


def render_page(report: dict[str, Any], image_root: Path) -> str:
    """Returns the whole page as a string of HTML."""
    folder = files("mmtune.evaluate")

    def read(name: str) -> str:
        return (folder / name).read_text(encoding="utf-8")

    script = read("page.js")
    models = report.get("models") or []
    picture_uri = functools.cache(lambda image: data_uri(image_root / image, PICTURE_WIDTH))
    cards = [make_card(question, models, picture_uri) for question in report.get("questions") or []]
    shown_cards = spread(cards, NUM_CARDS_MOST)
    environment = Environment(
        loader=FunctionLoader(read),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value.translate(SPELLED_CONTROLS) if type(value) is str else value,
    )
    for function in (percent, duration, opening, control_label):
        environment.filters[function.__name__] = function
    return environment.get_template("page.html").render(
        report=report,
        models=models,
        labels={model["name"]: model["label"] for model in models},
        tables={table.name: table for table in make_tables(report.get("scores") or [], models)},
        cards=cards,
        shown_cards=shown_cards,
        example=pick_example(cards),
        dependence=count_dependence(cards),
        filters=card_filters(shown_cards),
        plots=[(plot, data_uri(Path(plot["path"]), PLOT_WIDTH)) for plot in report.get("plots") or []],
        unseen_set=UNSEEN_SET,
        text_set=TEXT_SET,
        num_cards_first=NUM_CARDS_FIRST,
        style=Markup(read("page.css")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def make_tables(scores: list[dict[str, Any]], models: list[dict[str, Any]]) -> list[Table]:
    """Sorts scores into one table per set; sets and groups keep their order, the group `all` comes first."""
    tables = []
    for name in dict.fromkeys(score["set"] for score in scores):
        of_set = [score for score in scores if score["set"] == name and score["total"]]
        groups = sorted(dict.fromkeys(score["group"] for score in of_set), key=lambda group: group != "all")
        rows = {}
        for group in groups:
            of_group = [score for score in of_set if score["group"] == group]
            rows[group] = [Cell(*split_controls(of_group, model["name"])) for model in models]
        tables.append(Table(name, rows))
    return tables


def percent(rate: float) -> str:
    """`0.894` -> `89`; never 100 or 0 unless it is exactly that."""
    return str(min(max(round(100 * rate), 1), 99) if 0 < rate < 1 else round(100 * rate))


def duration(seconds: float) -> str:
    """`131.2` -> `2 min 11 s`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def opening(text: str) -> tuple[str, str]:
    """Splits a long text into what is shown at once and the rest, which is empty for a short one."""
    if len(text) <= NUM_CHARACTERS_FIRST * 1.25:
        return text, ""
    cut = text.rfind(" ", NUM_CHARACTERS_FIRST // 2, NUM_CHARACTERS_FIRST) + 1 or NUM_CHARACTERS_FIRST
    return text[:cut], text[cut:]
