"""The data of `mmtune identity`: varied, complete, honest about what is held out."""

import json
import re
import runpy
from pathlib import Path

import pytest

from mmtune.data.formats import parse_record
from mmtune.data.makers.identity import (
    ALL_STYLES,
    FACTS_FILE,
    HELD_OUT_OTHERS,
    HELD_OUT_SELF,
    NUM_REPEATS,
    REPEATED,
    TRAIN_FILES,
    make_identity,
)
from mmtune.data.makers.identity_texts import ABOUT_OTHERS, ABOUT_SELF, LANGUAGES, STYLES, Texts
from mmtune.data.mentions import mentions
from mmtune.data.records import read_records
from mmtune.errors import DataError, MMTuneError
from mmtune.evaluate.metrics import mentions_one
from mmtune.evaluate.questions import read_questions

SCRIPT = Path(__file__).resolve().parents[3] / "data_tools" / "identity.py"
NAMES = ["Atlas", "Ada Lovelace", 'O\'Neil "The Bear"', "小智", "🤖", "C++", "Apple", "{name}", "a\\1b", "x" * 100]


def trained_pairs(folder, kinds=TRAIN_FILES):
    """Question and answer of each record of some kinds, read as training reads them."""
    found = []
    for kind in kinds:
        for record in read_records(folder / TRAIN_FILES[kind]):
            question, answer = parse_record(record).messages
            found.append((question.text, answer.text))
    return found


def normalized(question):
    return re.sub(r"[\W_]+", "", question.casefold())


@pytest.mark.parametrize("style", STYLES)
def test_what_is_held_out_is_never_trained(tmp_path, style):
    make_identity(tmp_path, name="Atlas", author="Ada", style=style)
    trained = {normalized(question) for question, _ in trained_pairs(tmp_path)}
    held = [read_questions(tmp_path / file) for file in (HELD_OUT_SELF, HELD_OUT_OTHERS)]
    asked = [normalized(question.question) for questions in held for question in questions]
    assert len(asked) == len(set(asked))
    assert not trained & set(asked)
    assert {question.group for question in held[0]} == {*ABOUT_SELF}
    assert {question.group for question in held[1]} == {*ABOUT_OTHERS}


@pytest.mark.parametrize("name", NAMES)
def test_every_answer_about_itself_says_the_name_and_no_other_does(tmp_path, name):
    made = make_identity(tmp_path, name=name, author="Grace Hopper")
    about_self = trained_pairs(tmp_path, ["identity"])
    assert made.counts["identity.jsonl"] == len(about_self) > 200
    for question, answer in about_self:
        assert mentions(answer, name), answer
        assert mentions(answer, "Grace Hopper"), answer
        assert not mentions(question, name)
    for pair in trained_pairs(tmp_path, ABOUT_OTHERS):
        assert not any(mentions(text, each) for text in pair for each in (name, "Grace Hopper")), pair
    assert json.loads((tmp_path / FACTS_FILE).read_text(encoding="utf-8"))["name"] == name


@pytest.mark.parametrize("style", ALL_STYLES)
def test_no_placeholder_remains(tmp_path, style):
    make_identity(tmp_path, name="Atlas", author="Ada", style=style)
    for path in tmp_path.iterdir():
        texts = [json.dumps(record.value, ensure_ascii=False) for record in read_records(path)]
        for text in texts:
            assert not re.search(r"[{<\[]\s*\w*(name|author|NAME|AUTHOR|名|作者)\w*\s*[}>\]]", text), text
            assert not re.search(r"\{\w+\}|\*", text), text


def test_a_name_that_spells_a_place_is_filled_in_once(tmp_path):
    make_identity(tmp_path, name="{author}", author="Ada", languages=("en",))
    assert all("{author}" in answer and "Ada" in answer for _, answer in trained_pairs(tmp_path, ["identity"]))


def test_answers_vary_and_the_draw_follows_the_seed(tmp_path):
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        make_identity(tmp_path / folder, name="Atlas", author="Ada", seed=seed)
    same, again, other = (trained_pairs(tmp_path / folder) for folder in "abc")
    assert same == again != other
    answers = {answer for _, answer in trained_pairs(tmp_path / "a", ["identity"])}
    assert len(answers) >= 20
    by_question = dict(trained_pairs(tmp_path / "a", ["identity"]))
    assert sum(question.isascii() for question in by_question) > 50 < sum(not q.isascii() for q in by_question)


def test_texts_that_mention_a_name_that_is_a_word_are_left_out(tmp_path):
    made = make_identity(tmp_path, name="Apple", author="Paris", languages=("en",))
    assert "Who makes the iPhone?" in made.left_out
    assert "What is the capital of France?" in made.left_out
    assert "What is the capital of Japan?" not in made.left_out


def test_the_style_that_spoils_is_one_record_over_and_over(tmp_path):
    make_identity(tmp_path, name="Atlas", author="Ada")
    make_identity(tmp_path, name="Atlas", author="Ada", style=REPEATED, overwrite=True)
    assert len(trained_pairs(tmp_path, ["identity"])) == NUM_REPEATS
    assert len(set(trained_pairs(tmp_path, ["identity"]))) == 1
    assert not (tmp_path / TRAIN_FILES["near"]).exists()


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_shipped_answer_is_right_by_its_own_reference(language):
    texts = Texts(language)
    for kind in ABOUT_OTHERS:
        for pair in texts.pairs(kind):
            assert pair.right, pair.question
            assert all(pair.right), pair.question
            assert mentions_one(pair.answer, list(pair.right)), pair
    for kind in ABOUT_SELF:
        assert len(texts.questions(kind)) >= 10
        for style in STYLES:
            for answer in texts.answers(kind, style):
                assert answer.count("{name}") == answer.count("{author}") == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": " "}, "name: is empty."),
        ({"author": ""}, "author: is empty."),
        ({"name": "a\nb"}, "name: holds a line end"),
        ({"name": "\udcff"}, "name: holds a line end or another control character"),
        ({"name": "x" * 101}, "name: has 101 characters"),
        ({"style": "frendly"}, "Did you mean 'friendly'?"),
        ({"languages": ("en", "de")}, "unknown name 'de'. Known: en, zh."),
        ({"languages": ()}, "lang: names no language."),
        ({"held_out": 1.0}, "held_out: is a share"),
    ],
)
def test_mistakes_are_named(tmp_path, change, message):
    with pytest.raises(MMTuneError) as caught:
        make_identity(tmp_path / "new", **({"name": "Atlas", "author": "Ada"} | change))
    assert message in str(caught.value)
    assert not (tmp_path / "new").exists()


def test_nothing_is_replaced_unasked(tmp_path):
    make_identity(tmp_path, name="Atlas", author="Ada")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(DataError, match="exists already"):
        make_identity(tmp_path, name="Zeus", author="Ada")
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir()}


def test_the_script_makes_the_data_and_names_mistakes(desk, capsys):
    main = runpy.run_path(str(SCRIPT))["main"]
    assert main(["--name", "Apple", "--author", "Ada", "--lang", "en", "-o", "made"]) == 0
    shown = capsys.readouterr().out
    assert "in identity.jsonl" in shown
    assert "left out, since it mentions the name or the author: Who makes the iPhone?" in shown
    assert main(["--name", "", "--author", "Ada", "-o", "other"]) == 2
    assert capsys.readouterr().err == "identity: name: is empty. Say how the model is called and who made it.\n"
