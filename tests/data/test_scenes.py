"""The demo's data: the same bytes from the same seed, held-out scenes apart, yes and no in balance."""

import json

import pytest

from mmtune.data.formats import parse_record
from mmtune.data.makers.scene_things import THINGS, UNSEEN_THINGS
from mmtune.data.makers.scenes import make_scenes
from mmtune.data.records import read_records

SIZES = {
    "num_caption_images": 20,
    "num_dialogue_images": 20,
    "num_heldout_captions": 6,
    "num_heldout_questions_per_group": 4,
    "num_unseen_questions_per_group": 2,
    "image_size": 64,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    return folder, make_scenes(folder, seed=3, **SIZES)


def test_the_same_seed_gives_the_same_bytes(made, tmp_path):
    folder, _paths = made
    make_scenes(tmp_path, seed=3, **SIZES)
    files = sorted(path.relative_to(folder) for path in folder.rglob("*.*"))
    assert len(files) > 70
    assert all((folder / name).read_bytes() == (tmp_path / name).read_bytes() for name in files)


def test_every_record_is_valid_and_every_image_there(made):
    folder, paths = made
    for name in ("captions", "dialogues"):
        conversations = [parse_record(record) for record in read_records(paths[name])]
        assert all((folder / image).is_file() for conversation in conversations for image in conversation.images)
    assert any(not conversation.images for conversation in conversations), "dialogues keep some plain text"


def test_no_held_out_caption_is_a_training_caption(made):
    _folder, paths = made
    trained = {record.value["conversations"][1]["value"] for record in read_records(paths["captions"])}
    held_out = {
        reference for record in read_records(paths["heldout_captions"]) for reference in record.value["reference"]
    }
    assert held_out
    assert not held_out & trained


def test_yes_and_no_are_balanced_and_no_unseen_thing_is_a_known_one(made):
    _folder, paths = made
    questions = json.loads(paths["heldout_questions"].read_text())
    for group in ("animal", "eat", "is this a"):
        verdicts = [question["reference"][0].rsplit(" ", 1)[1] for question in questions if question["group"] == group]
        assert sorted(verdicts) == ["no.", "no.", "yes.", "yes."]
    assert not {thing.name for thing in THINGS} & {thing.name for thing in UNSEEN_THINGS}
