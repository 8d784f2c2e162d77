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
from mmtune.evaluate.measures import RIGHT, p_text
from mmtune.evaluate.memorised import FLAG_LABELS
from mmtune.evaluate.page_cards import (
    UNSEEN_SET,
    card_filters,
    data_uri,
    make_card,
    pick_example,
    split_controls,
)
from mmtune.evaluate.page_text import duration, percent, pieces, unbroken
from mmtune.evaluate.questions import spread
from mmtune.evaluate.summary import PERMUTATION, TESTS, change_lines, control_label, memorised_lines
from mmtune.plain_text import printable

TEXT_SET = "text questions"
PICTURE_WIDTH = 256
PLOT_WIDTH = 1200
NUM_CARDS_FIRST = 60
NUM_CARDS_MOST = 1200


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
        report: as `build_report` of `report.py` returns it; models are in their order, before first, after last.
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
    labels = {model["name"]: model["label"] for model in models}
    picture_uri = functools.cache(lambda image: data_uri(image_root / image, PICTURE_WIDTH))
    cards = [make_card(question, models, picture_uri) for question in report.get("questions") or []]
    shown_cards = spread(cards, NUM_CARDS_MOST)
    environment = Environment(
        loader=FunctionLoader(read),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    for function in (percent, duration, pieces, control_label, p_text):
        environment.filters[function.__name__] = function
    return environment.get_template("page.html").render(
        report=report,
        models=models,
        labels=labels,
        tables={table.name: table for table in make_tables(report.get("scores") or [], models)},
        cards=cards,
        shown_cards=shown_cards,
        example=pick_example(cards),
        filters=card_filters(shown_cards),
        flag_labels=FLAG_LABELS,
        measure_tables=make_measure_tables(report.get("measures") or []),
        tests=TESTS,
        permutation=PERMUTATION,
        changes={name: unbroken(line) for name, line in change_lines(report, labels).items()},
        memorised=memorised_lines(report.get("memorised") or [], labels),
        has_memorised=any(count[kind][0] for count in report.get("memorised") or [] for kind in ("images", "text")),
        plots=[(plot, data_uri(Path(plot["path"]), PLOT_WIDTH)) for plot in report.get("plots") or []],
        unseen_set=UNSEEN_SET,
        text_set=TEXT_SET,
        num_cards_first=NUM_CARDS_FIRST,
        style=Markup(read("page.css")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def make_tables(scores: list[dict[str, Any]], models: list[dict[str, Any]]) -> list[Table]:
    """Sorts scores into one table per set; sets and groups keep their order, the group `all` comes first or alone."""
    tables = []
    for name in dict.fromkeys(score["set"] for score in scores):
        of_set = [score for score in scores if score["set"] == name and score["total"]]
        groups = sorted(dict.fromkeys(score["group"] for score in of_set), key=lambda group: group != "all")
        if len(groups) == 2 and "all" in groups:
            groups = ["all"]  # the same figures as its only group
        rows = {}
        for group in groups:
            of_group = [score for score in of_set if score["group"] == group]
            rows[group] = [Cell(*split_controls(of_group, model["name"])) for model in models]
        tables.append(Table(name, rows))
    return tables


def make_measure_tables(rows: list[dict[str, Any]]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Sorts figures into set -> measure -> one row a model; what is simply right stands in the tables of scores."""
    tables: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for row in rows:
        if row["measure"] != RIGHT:
            tables.setdefault(row["set"], {}).setdefault(row["measure"], []).append(row)
    return tables
