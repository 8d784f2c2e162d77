"""What is held out: whole images, whole texts, by the seed alone."""

import json

import numpy as np
import pytest
from PIL import Image

from mmtune.build_data import build_dataset, build_reader
from mmtune.config import load_config
from mmtune.data.holding_out import draw_groups, hold_out, sample_groups


@pytest.fixture
def dataset(desk, record, data_file, config_file):
    """Return a factory: the samples of some records; images that are not there are drawn, each another one."""

    def make(*records):
        for number, name in enumerate(sorted(set().union(*map(images_of, records)))):
            if not (desk / name).exists():
                Image.new("RGB", (40, 32), (number, 90, 160)).save(desk / name)
        data_file(*records, draw=False)
        config = load_config(config_file(), [], "pretrain")
        return build_dataset(config, build_reader(config.model))[0]

    return make


def images_of(record):
    images = record.get("image", [])
    return [images] if isinstance(images, str) else images


def pictures(dataset):
    return [set(map(str, dataset.sample(index).images)) for index in range(len(dataset))]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("fraction", [0.1, 0.3, 0.7])
def test_no_image_is_on_both_sides(dataset, record, seed, fraction):
    rng = np.random.default_rng(seed)
    names = [f"{number}.png" for number in range(12)]
    records = [record("<image>\nWhat?", f"A {number}.", image=str(rng.choice(names))) for number in range(30)]
    records += [record("<image><image>\nBoth?", "Two.", image=list(map(str, rng.choice(names, 2)))) for _ in range(2)]
    records += [record(f"Say {number}", "So.") for number in range(8)]
    whole = dataset(*records)
    trained, held = hold_out(whole, fraction, seed)
    assert not set.union(*pictures(trained)) & set.union(*pictures(held))
    assert sorted([*trained.order, *held.order]) == list(range(len(records)))
    assert 0 < len(held) <= round(fraction * len(records))
    again = hold_out(whole, fraction, seed)
    assert (again[1].order == held.order).all()


def test_the_seed_draws(dataset, record):
    whole = dataset(*[record(f"Say {number}", "So.") for number in range(40)])
    drawn = {tuple(hold_out(whole, 0.2, seed)[1].order) for seed in range(4)}
    assert len(drawn) == 4
    assert {len(order) for order in drawn} == {8}


def test_one_picture_under_two_names_and_texts_that_say_the_same_stay_together(dataset, record, desk):
    for name in ("a.png", "b.png"):
        Image.new("RGB", (40, 32), (10, 20, 30)).save(desk / name)
    Image.new("RGB", (40, 32), (200, 20, 30)).save(desk / "c.png")
    see = [record("<image>\nWhat?", f"{name}.", image=name) for name in ("a.png", "b.png", "c.png")]
    whole = dataset(*see, record("Hi", "Hello."), record("Hi", "Hello."), record("Hi", "Bye."))
    a, b, c, first, second, other = sample_groups(whole, np.arange(6))
    assert a == b != c
    assert first == second != other
    Image.new("RGB", (40, 32), (0, 0, 90)).save(desk / "b.png")  # numbers of an image are not those of its old file
    groups = sample_groups(dataset(*see), np.arange(3))
    assert len(set(groups)) == 3


def test_a_repeated_sample_is_measured_once_and_never_trained(desk, record, data_file, config_file):
    data_file(*[record(f"Say {number}", "So.") for number in range(10)])
    config = load_config(config_file("data.train.0.repeat=3"), [], "pretrain")
    whole, _ = build_dataset(config, build_reader(config.model))
    trained, held = hold_out(whole, 0.2, 0)
    assert (len(whole), len(trained), len(held)) == (30, 24, 2)
    assert not set(trained.order) & set(held.order)


def test_groups_are_drawn_whole_and_the_smallest_where_none_fits():
    groups = np.array([0] * 5 + [1] * 3 + [2] * 2)
    assert draw_groups(groups, 0.1, 0).tolist() == [False] * 8 + [True] * 2
    assert draw_groups(np.arange(100), 0.25, 0).sum() == 25


def test_samples_of_one_image_cannot_be_split(dataset, record):
    whole = dataset(*[record("<image>\nWhat?", f"{number}.", image="a.png") for number in range(5)])
    assert hold_out(whole, 0.2, 0) is None


def test_a_document_in_several_pieces_is_held_out_whole(desk, config_file):
    texts = [f"{number} " * 150 for number in range(8)]
    (desk / "texts.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    config = load_config(
        config_file("data.train.0.path=texts.jsonl", "model.vision=null", "model.projector=null"), [], "sft"
    )
    whole, _ = build_dataset(config, build_reader(config.model))
    assert len(whole) > len(texts)
    trained, held = hold_out(whole, 0.4, 0)
    lines = [{side.place(index) for index in range(len(side))} for side in (trained, held)]
    assert not lines[0] & lines[1]
