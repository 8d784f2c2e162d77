"""The comparison page: nothing from the data runs, nothing is fetched, and every part may be missing."""

import base64
import hashlib
import json
from html.parser import HTMLParser

import pytest
from PIL import Image

from mmtune.errors import MMTuneError
from mmtune.evaluate.page import NUM_CARDS_MOST, write_page

HOSTILE = """<script>alert(1)</script>"'></style><img src=x onerror=alert(2)>{{ 7*7 }}&amp;\x00"""
VOID = {"meta", "link", "img", "br"}


class Reader(HTMLParser):
    """Collects the tags, their attributes and the text of a page, and checks that tags are balanced."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.open, self.texts = [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    @property
    def text(self):
        """The words a reader sees, with single spaces."""
        words = "".join(data for tag, data in self.texts if tag not in ("script", "style"))
        return " ".join(words.split())

    def find(self, tag, **attrs):
        """The attributes of all such tags; `class_` stands for `class`."""
        wanted = {name.rstrip("_").replace("_", "-"): value for name, value in attrs.items()}
        return [found for name, found in self.tags if name == tag and wanted.items() <= found.items()]


def score(group, model, condition, correct, total=60, low=0.0, high=1.0, set_="held-out scenes"):
    names = ("set", "group", "model", "condition", "correct", "total", "rate", "low", "high")
    rate = correct / total if total else None
    return dict(zip(names, (set_, group, model, condition, correct, total, rate, low, high), strict=True))


def answer(model, condition, text, correct):
    return {"model": model, "condition": condition, "text": text, "correct": correct}


def measure(model, value, p):
    figures = {"value": value, "low": value - 0.125, "high": value + 0.125, "total": 60, "p": p}
    return {"set": "held-out scenes", "measure": "token F1", "model": model, **figures, "gained": None, "lost": None}


@pytest.fixture
def report(tmp_path):
    Image.new("RGB", (900, 600), "#cc2233").save(tmp_path / "apple.png")
    Image.new("RGB", (300, 200), "white").save(tmp_path / "loss.png")
    models = {"base": ("Base", "untouched"), "pretrain": ("Stage 1", "captions"), "finetune": ("Stage 2", "")}
    question = {"id": "h001", "set": "held-out scenes", "group": "what is this", "image": "apple.png"}
    answers = [
        answer("base", "none", "I cannot see.", False),
        answer("pretrain", "image", "an apple on white", False),
        answer("finetune", "image", "an apple", True),
        answer("finetune", "blank", "a dog", False),
    ]
    flags = {"finetune": ["image", "verbatim"]}
    return {
        "title": "It learns to see",
        "created": "2026-11-22 16:10",
        "versions": {"mmtune": "0.1.0"},
        "models": [{"name": name, "label": label, "note": note} for name, (label, note) in models.items()],
        "scores": [
            score("what is this", "finetune", "image", 57, low=0.86, high=0.98),
            score("all", "base", "none", 6, low=0.05, high=0.2),
            score("all", "finetune", "image", 54, low=0.8, high=0.95),
            score("all", "finetune", "blank", 12, low=0.12, high=0.32),
            score("all", "finetune", "shuffled", 18, low=0.2, high=0.42),
            score("all", "finetune", "image", 1, 20, set_="never trained on"),
            score("all", "finetune", "none", 47, 50, set_="text questions"),
        ],
        "measures": [measure("base", 0.125, None), measure("finetune", 0.875, 0.0002)],
        "dependence": {
            "model": "finetune",
            "depends": 50,
            "of": 60,
            "changed": {"blank": [49, 60], "shuffled": [45, 55]},
        },
        "memorised": [{"model": "finetune", "images": [3, 60], "text": [0, 50]}],
        "training_data_notes": ["a.json: no longer there"],
        "left_out": ["q.json:7: image x.png is missing"],
        "missing_measures": ["BLEU needs the package sacrebleu"],
        "retention": {"before": "base", "after": "finetune", "kept": 46, "of": 48},
        "times": [{"name": "pretrain", "seconds": 131.0}],
        "plots": [{"title": "Stage 1 loss", "path": str(tmp_path / "loss.png")}],
        "questions": [
            {**question, "question": "What is this?", "reference": ["an apple"], "answers": answers, "flags": flags}
        ],
        "credits": ["Pictures: Twemoji (CC-BY 4.0), https://example.org"],
    }


def read_page(report, tmp_path):
    write_page(report, tmp_path / "out" / "page.html", tmp_path)
    return Reader((tmp_path / "out" / "page.html").read_text(encoding="utf-8"))


def poison(value):
    """Puts the hostile text after every string that is shown; the words that steer the page stay."""
    if isinstance(value, dict):
        keep = {"model", "name", "condition", "image", "path", "before", "after", "flags", "changed", "measure"}
        return {key: item if key in keep else poison(item) for key, item in value.items()}
    if isinstance(value, list):
        return [poison(item) for item in value]
    is_shown = isinstance(value, str) and value not in ("all", "never trained on", "text questions")
    return value + HOSTILE if is_shown else value


def test_says_what_the_report_says(report, tmp_path):
    page = read_page(report, tmp_path)
    assert "Of 60 questions (held-out scenes), Base answers 10% right, Stage 2 90%" in page.text
    assert "Of the 48 text questions that Base answers right, 46 are still answered right" in page.text
    assert "30% with the picture of another question" in page.text
    assert "This one looks." in page.text
    assert "50 of 60 answers depend on the picture: 49 of 60 change with a blank picture" in page.text
    assert " and 45 of 55 change with the picture of another question." in page.text
    assert "3 of 60 answers are verbatim sentences of the training set about training images (Stage 2)" in page.text
    assert "Not known: a.json: no longer there" in page.text
    assert "1 left out q.json:7: image x.png is missing" in page.text
    assert "BLEU needs the package sacrebleu" in page.text
    assert "token F1 0.12 0.00–0.25 0.88 0.75–1.00 p < 0.001 paired permutation test" in page.text
    assert page.find("article", data_training="memorised")
    assert page.find("span", class_="flag warns")
    assert "no promise" in page.text
    assert "pretrain 2 min 11 s" in page.text
    assert "mmtune 0.1.0" in page.text
    assert "Expected: an apple" in page.text
    assert [found["aria-label"] for found in page.find("span", class_="mark right")] == ["right"] * 2
    assert page.find("article", class_="card", data_change="gained", data_group="what is this")


def test_hostile_text_is_only_text(report, tmp_path):
    clean, page = read_page(report, tmp_path), read_page(poison(report), tmp_path)
    tags = [(tag, set(attrs)) for tag, attrs in page.tags]
    assert [tag for tag in tags if tag != ("mark", set())] == [(tag, set(attrs)) for tag, attrs in clean.tags]
    assert page.text.count("<script>alert(1)</script>") >= 10
    assert "{{ 7*7 }}&amp;␀" in page.text
    groups = [found["data-value"] for found in page.find("button", data_key="change")]
    assert groups == ["", "gained", "lost"]


def test_hostile_names_of_models_conditions_and_files(report, tmp_path):
    clean = read_page(report, tmp_path)
    report["questions"][0]["answers"][2]["text"] = "\ud83d broken"
    text = json.dumps(report)
    for name, hostile in (("finetune", "tune<b>'"), ("blank", "<i>"), ("apple.png", "'><hr>.png")):
        text = text.replace(f'"{name}"', f'"{hostile}"')
    page = read_page(json.loads(text), tmp_path)
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in clean.tags} | {"p", "br"}
    assert "'><hr>.png" in page.text
    assert "with <i>" in page.text
    assert "? broken" in page.text, "half a surrogate pair"


def test_asks_the_network_for_nothing_and_runs_only_its_own_script(report, tmp_path):
    page = read_page(poison(report), tmp_path)
    for tag, attrs in page.tags:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            assert attrs.get(name, "data:").startswith("data:"), (tag, attrs)
        assert not any(name.startswith("on") for name in attrs)
        assert "url(" not in (attrs.get("style") or "")
    styles = "".join(data for tag, data in page.texts if tag == "style")
    assert not any(word in styles for word in ("url(", "@import"))
    script = "".join(data for tag, data in page.texts if tag == "script")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = page.find("meta", http_equiv="Content-Security-Policy")
    assert policy["content"].startswith("default-src 'none'; img-src data:;")
    assert f"script-src 'sha256-{digest}'" in policy["content"]


def test_pictures_are_embedded(report, tmp_path):
    page = read_page(report, tmp_path)
    assert len(page.find("img", alt="The picture asked about (apple.png)")) == 2, "the example and the card"
    assert page.find("img", alt="Stage 1 loss")


def test_unreadable_pictures_leave_a_labelled_gap(report, tmp_path):
    (tmp_path / "broken.svg").write_text("<svg onload='alert(1)'/>", encoding="utf-8")
    report["questions"][0]["image"] = ["broken.svg", "nowhere.png", "https://example.org/a.png"]
    report["plots"][0]["path"] = "nowhere/loss.png"
    page = read_page(report, tmp_path)
    assert "picture missingbroken.svg" in page.text
    assert page.text.count("picture missing") == 3
    assert "plot missing" in page.text
    assert not page.find("img")


@pytest.mark.parametrize(
    "part",
    [
        *("title", "created", "versions", "scores", "retention", "times", "plots", "questions", "credits"),
        *("measures", "dependence", "memorised", "training_data_notes", "left_out", "missing_measures", "models"),
    ],
)
@pytest.mark.parametrize("is_null", [True, False])
def test_any_part_may_be_missing(report, tmp_path, part, is_null):
    report.pop(part)
    if is_null:
        report[part] = None
    page = read_page(report, tmp_path)
    assert page.find("h1") == [{}]
    assert "None" not in page.text
    assert read_page({}, tmp_path).text.endswith("No questions were asked.")


def test_comparison_without_references(report, tmp_path):
    """Two models, nothing to judge by: no marks and no figures, but what changed can still be found."""
    del report["scores"], report["retention"]
    report["models"] = report["models"][::2]
    question = report["questions"][0]
    question["reference"] = None
    question["answers"] = [{**given, "correct": None} for given in question["answers"]]
    question["answers"].append(answer("pretrain", "image", "of a model that is not compared", None))
    question["answers"][2]["text"] = " "
    page = read_page(report, tmp_path)
    assert "1 question, answered by Base and Stage 2." in page.text
    assert not any("mark" in attrs.get("class", "") for _, attrs in page.tags)
    assert page.find("article", data_change="differs")
    assert "Expected" not in page.text
    assert "not compared" not in page.text
    assert "no words" in page.text


def test_does_not_claim_that_it_looks_when_intervals_overlap(report, tmp_path):
    report["scores"] = [
        score("all", "base", "none", 20, low=0.2, high=0.4),
        score("all", "finetune", "image", 30, low=0.38, high=0.6),
        score("all", "finetune", "shuffled", 25, low=0.3, high=0.55),
        score("placement", "finetune", "image", 0, 0),
    ]
    page = read_page(report, tmp_path)
    assert "do not show that it looks" in page.text
    assert "This one looks" not in page.text
    assert "placement" not in page.text


def test_cards_can_all_be_read_without_scripts(report, tmp_path):
    report["questions"] *= 70
    page = read_page(report, tmp_path)
    cards = page.find("article", class_="card")
    assert len(cards) == 70
    assert not any("hidden" in card for card in cards)
    assert "hidden" in page.find("form", id="filters")[0]
    assert page.find("div", id="cards", data_first="60")


def test_of_very_many_questions_an_even_part_is_shown_and_said(report, tmp_path):
    (question,) = report["questions"]
    report["questions"] = [question | {"question": f"Question {number}?"} for number in range(3 * NUM_CARDS_MOST)]
    page = read_page(report, tmp_path)
    assert len(page.find("article", class_="card")) == NUM_CARDS_MOST
    assert f"{NUM_CARDS_MOST} of {3 * NUM_CARDS_MOST} questions Spread evenly" in page.text
    assert f"one of {3 * NUM_CARDS_MOST} questions answered wrong before and right after" in page.text
    assert "Question 3?" in page.text
    assert "Question 4?" not in page.text


def test_unwritable_place_is_one_line(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(MMTuneError, match=r"page\.html: cannot be written \(.*\)\. Choose another place\.$"):
        write_page({}, tmp_path / "file" / "page.html")


def test_tables_are_tables(report, tmp_path):
    page = read_page(report, tmp_path)
    assert len(page.find("table")) == len(page.find("caption")) == 4
    assert all("scope" in attrs for attrs in page.find("th"))
    assert page.find("html", lang="en")
    assert all(attrs["alt"] for attrs in page.find("img"))
