import io
import json
import os
import tarfile

import pytest
import webdataset
from PIL import Image

from mmtune.conversation import ImageSlot
from mmtune.data import tar_records
from mmtune.data.formats import parse_record
from mmtune.data.records import read_records
from mmtune.errors import DataError


def jpeg(number):
    file = io.BytesIO()
    Image.new("RGB", (6 + number, 4), (10 * number, 90, 160)).save(file, "JPEG")
    return file.getvalue()


def write_tar(path, *members, **options):
    """Write members given as `(name, bytes or text or JSON value)`."""
    with tarfile.open(path, "w", **options) as tar:
        for name, content in members:
            data = content if isinstance(content, bytes) else content.encode() if isinstance(content, str) else None
            data = json.dumps(content).encode() if data is None else data
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def bytes_of(slot):
    with open(slot.path, "rb") as file:
        file.seek(slot.offset)
        return file.read(slot.size)


def problem_of(path, number=1):
    (record,) = [record for record in read_records(path) if record.line == number]
    assert record.value is None
    assert "\n" not in record.problem
    return record.problem


def problem_of_sample(tmp_path, *members):
    """The problem of a bad first sample, behind which a good one is still read."""
    path = write_tar(tmp_path / "a.tar", *members, ("good.jpg", jpeg(1)), ("good.txt", "Fine."))
    _, good = read_records(path)
    assert parse_record(good).messages[1].text == "Fine."
    return problem_of(path)


def test_shards_of_webdataset_give_what_webdataset_reads(tmp_path, record):
    """LLaVA dialogues, with and without an image, written by WebDataset's own writer over two shards."""
    talks = {
        f"{number:05}": record("<image>\nWhat?", f"Number {number}.") if number % 3 else record("Hi", f"{number}.")
        for number in range(20)
    }
    with webdataset.ShardWriter(str(tmp_path / "train-%06d.tar"), maxcount=12, verbose=0) as writer:
        for key, talk in talks.items():
            image = {"jpg": jpeg(int(key))} if int(key) % 3 else {}
            writer.write({"__key__": key, "json": talk} | image)
    pattern = f"{tmp_path}/train-{{000000..000001}}.tar"
    theirs = list(webdataset.WebDataset(pattern, shardshuffle=False))
    for source in (pattern, tmp_path, tmp_path / "*.tar"):
        records = list(read_records(source))
        conversations = [parse_record(each) for each in records]
        answers = [conversation.messages[-1].text for conversation in conversations]
        assert answers == [json.loads(their["json"])["conversations"][-1]["value"] for their in theirs]
        images = [[bytes_of(slot) for slot in conversation.image_slots] for conversation in conversations]
        assert images == [[their["jpg"]] if "jpg" in their else [] for their in theirs]
        assert sum(map(len, images)) == 13
        places = [("train-000000.tar", row) for row in range(1, 13)] + [
            ("train-000001.tar", row) for row in range(1, 9)
        ]
        assert [(each.path.name, each.line) for each in records] == places


def test_captions_stand_beside_their_image(tmp_path):
    path = write_tar(
        tmp_path / "a.tar",
        ("a.jpg", jpeg(1)),
        ("a.txt", "A cat.\n"),
        ("sub.d/b.PNG", jpeg(2)),
        ("sub.d/b.caption", "\ufeffA dog."),
        ("c.json", {"url": "http://a", "caption": "A cow."}),
        ("c.txt", "Not this one."),
        ("c.webp", jpeg(3)),
        ("c.cls", "7"),
    )
    records = list(read_records(path))
    assert [parse_record(record).messages[1].text for record in records] == ["A cat.", "A dog.", "A cow."]
    slots = [parse_record(record).image_slots[0] for record in records]
    assert [bytes_of(slot) for slot in slots] == [jpeg(1), jpeg(2), jpeg(3)]
    assert all(os.path.isabs(slot.path) for slot in slots)
    assert isinstance(records[0].value["image"], ImageSlot)


def test_a_text_alone_is_a_record(tmp_path, record):
    path = write_tar(tmp_path / "a.tar", ("a.json", record("Hi", "Hello.")), ("b.json", {"text": "All of it."}))
    assert [parse_record(each).__class__.__name__ for each in read_records(path)] == ["Conversation", "Document"]


@pytest.mark.parametrize("key", ["image", "images"])
@pytest.mark.parametrize(
    ("named", "order"),
    [
        (None, [2, 10, 11]),
        ([], [2, 10, 11]),
        (["11.jpg", "2.jpg"], [11, 2]),
        (["k.10.jpg", "x/y/k.2.jpg", "K.11.JPG"], [10, 2, 11]),
        ("10.jpg", [10]),
    ],
)
def test_several_images_stand_by_name_or_by_number(tmp_path, record, named, order, key):
    talk = record("<image>" * len(order), "Several.") | ({} if named is None else {key: named})
    members = [(f"sub/k.{number}.jpg", jpeg(number)) for number in (10, 2, 11)]
    (only,) = read_records(write_tar(tmp_path / "a.tar", *members, ("sub/k.json", talk)))
    assert [bytes_of(slot) for slot in parse_record(only).image_slots] == [jpeg(number) for number in order]


@pytest.mark.parametrize("named", ["coco/train2017/000000033471.jpg", ["coco/1.png"]])
def test_the_one_image_of_a_sample_needs_no_name(tmp_path, record, named):
    talk = record("<image>", "One.", image=named)
    (only,) = read_records(write_tar(tmp_path / "a.tar", ("k.json", talk), ("k.jpg", jpeg(1))))
    assert [bytes_of(slot) for slot in parse_record(only).image_slots] == [jpeg(1)]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_form_of_tar_is_read(tmp_path, form):
    folder = "/".join(["眼科" * 10] * 3) if form != tarfile.USTAR_FORMAT else "a/" * 60
    members = [(f"{folder}/{number}.{ending}", content) for number in range(3) for ending, content in [
        ("jpg", jpeg(number)), ("txt", f"Number {number}.")]]  # fmt: skip
    records = list(read_records(write_tar(tmp_path / "a.tar", *members, format=form)))
    assert [bytes_of(parse_record(record).image_slots[0]) for record in records] == [jpeg(n) for n in range(3)]


def test_folders_meta_members_and_names_without_extension_are_no_samples(tmp_path):
    path = tmp_path / "a.tar"
    (tmp_path / "d").mkdir()
    with tarfile.open(path, "w") as tar:
        tar.add(tmp_path / "d", "d.jpg")
    with tarfile.open(path, "a") as tar:
        for name in ("README", "__meta__/a.json", "._hidden", ".DS_Store"):
            tar.addfile(tarfile.TarInfo(name))
        for name in ("d/a.txt", "d/a.jpg"):
            info = tarfile.TarInfo(name)
            info.size = 3
            tar.addfile(info, io.BytesIO(b"abc"))
    (only,) = read_records(path)
    assert only.value == {"caption": "abc", "image": parse_record(only).image_slots[0]}


def test_images_are_located_and_never_read(tmp_path):
    """A gigabyte of holes is passed over at once: reading it would take seconds."""
    path = write_tar(tmp_path / "a.tar", ("a.txt", "A cat."))
    with path.open("r+b") as file:
        info = tarfile.TarInfo("a.jpg")
        info.size = 1 << 30
        file.seek(1024)
        file.write(info.tobuf())
        file.truncate(1024 + 512 + info.size + 1024)
    (only,) = read_records(path)
    assert only.value["image"] == ImageSlot(str(path), 1536, 1 << 30)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([("a.jpg", b"x"), ("a.cls", b"7")], "sample a has no text (got .jpg, .cls). Add a .json or .txt member"),
        ([("a.json", "{")], "a.json is broken JSON: Expecting property name enclosed in double quotes at line 1 col"),
        ([("a.json", "[1]")], "a.json must hold an object. A record is an object with keys such as conversations."),
        ([("a.json", '{"a":' * 100_000)], "a.json is nested too deep"),
        ([("a.txt", b"caf\xe9"), ("a.jpg", b"x")], "a.txt holds the byte 0xe9, which is not UTF-8"),
        ([("a.json", b"\xff{}")], "a.json holds the byte 0xff, which is not UTF-8"),
        ([("a.jpg", b"x"), ("a.txt", b"x"), ("a.JPG", b"x")], "sample a has two members '.jpg'"),
        (
            [("a.0.jpg", b"x"), ("a.1.jpg", b"y"), ("a.json", {"image": ["0.jpg", "2.jpg"]})],
            "sample a has no member for image '2.jpg' (got .0.jpg, .1.jpg). Name the member so.",
        ),
    ],
)
def test_a_bad_sample_is_a_problem_and_the_shard_goes_on(tmp_path, members, words):
    assert words in problem_of_sample(tmp_path, *members)


def test_interleaved_members_are_samples_of_their_own(tmp_path):
    path = write_tar(tmp_path / "a.tar", ("a.jpg", b"x"), ("b.jpg", b"y"), ("a.txt", "A."), ("b.txt", "B."))
    assert [record.problem[:23] for record in read_records(path)] == [
        "sample a has no text (g",
        "sample b has no text (g",
        "",
        "",
    ]
    assert [record.value for record in read_records(path)][2:] == [{"caption": "A."}, {"caption": "B."}]


def test_a_text_beyond_the_limit_is_a_problem(tmp_path, monkeypatch):
    monkeypatch.setattr(tar_records, "MAX_RECORD_BYTES", 1000)
    assert "a.json is longer than 0 MiB" in problem_of_sample(tmp_path, ("a.json", {"text": "x" * 1000}))


@pytest.mark.parametrize("num_cut", [1, 511, 512, 513, 1024, 1500, 2000, 3000])
def test_a_shard_that_is_cut_off_is_named_after_its_good_samples(tmp_path, num_cut):
    samples = [(f"{n}.{ending}", content) for n in range(4) for ending, content in [("txt", "x"), ("jpg", b"y" * 700)]]
    path = write_tar(tmp_path / "a.tar", *samples, ("README", b""))
    content = path.read_bytes().rstrip(b"\0")
    end = len(content) + -len(content) % 512
    path.write_bytes((content + bytes(512))[: end - num_cut])
    *good, last = read_records(path)
    assert [parse_record(record).messages[1].text for record in good] == ["x"] * len(good)
    assert len(good) >= 2
    assert (last.line, last.value, last.path) == (len(good) + 1, None, path)
    assert last.problem.startswith(f"the shard cannot be read on after {len(good)} samples: ")
    assert last.problem.endswith("Copy the file again.")


def test_the_shards_behind_a_broken_one_are_read(tmp_path):
    write_tar(tmp_path / "1.tar", ("a.txt", "A."))
    (tmp_path / "2.tar").write_bytes(b"This is no tar file at all. " * 100)
    write_tar(tmp_path / "3.tar")
    write_tar(tmp_path / "4.tar", ("d.txt", "D."))
    records = list(read_records(tmp_path))
    assert [(record.path.name, record.line) for record in records] == [(f"{n}.tar", 1) for n in (1, 2, 3, 4)]
    assert records[1].problem.startswith("the shard cannot be read: ")
    assert records[2].problem == "the shard holds no samples. Leave it out."


def test_what_follows_the_end_or_a_broken_header_is_not_passed_over(tmp_path):
    content = write_tar(tmp_path / "a.tar", ("a.txt", "A."), ("b.txt", "B.")).read_bytes()
    joined, broken = tmp_path / "joined.tar", tmp_path / "broken.tar"
    joined.write_bytes(content * 2)
    assert "more follows behind its end at byte 2048, as if tar files had been joined" in problem_of(joined, 2)
    broken.write_bytes(content[:2048] + b"?" * 512 + bytes(1024))
    assert "at byte 2048 stands neither a member nor the end" in problem_of(broken, 2)


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
def test_compressed_shards_are_refused_whatever_they_are_called(tmp_path, kind):
    with tarfile.open(tmp_path / "a.tar", f"w:{kind}") as tar:
        tar.addfile(tarfile.TarInfo("a.txt"))
    with pytest.raises(DataError, match=r"a.tar: is compressed with \w+, so no image in it can be reached alone"):
        list(read_records(tmp_path / "a.tar"))
