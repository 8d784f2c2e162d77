"""Mutated records and image files: never a traceback, never a hang, and every record is trained or listed."""

import copy
import io
import json
import random

import pytest
from PIL import Image
from prepared_data import prepare

from mmtune.errors import MMTuneError

__all__ = ["prepare"]

TALK = [{"from": "human", "value": "<image>\nWhat is this?"}, {"from": "gpt", "value": "A cat."}]
SEEDS = [
    {"id": "1", "image": "IMAGE", "conversations": TALK},
    {"conversations": [*TALK, {"from": "human", "value": "<image>?"}, {"from": "gpt", "value": "Yes."}],
     "image": ["IMAGE", "IMAGE"]},
    {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"},
                  {"role": "assistant", "content": "Hello.", "loss": True}]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "What?"},
                  {"type": "image_url", "image_url": {"url": "IMAGE"}}]}, {"role": "assistant", "content": "A cat."}]},
    {"image": "IMAGE", "caption": "A cat on a mat."},
    {"instruction": "Add.", "input": "1 and 2", "output": "3", "history": [["Hi", "Hello."]]},
    {"question": "Who?", "answer": "Me."},
    {"text": "A document of some words. " * 20},
    {"conversations": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes."}], "system": "S"},
    {"prompt": {"text": "Hi", "role": "prompter", "replies": [{"text": "Yo", "role": "assistant", "replies": []}]}},
]  # fmt: skip
VALUES = [None, "", " ", 0, -1, 1e308, True, [], {}, [[]], "<image>", "\ud83d", "\0", "<|im_end|>", "x" * 5000,
          "../../etc/passwd", "/etc/passwd", "http://x/y.png", "data:image/png;base64,!!", "data:image/png;base64,AAAA",
          "https://", "file:///etc/passwd", {"bytes": "no"}, {"url": None}, [None, 1, "a"], "\ufeff", "🙂",
          "IMAGE"]  # fmt: skip


def places(value, path=()):
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from places(child, (*path, key))


def mutated(rng, images):
    record = copy.deepcopy(rng.choice(SEEDS))
    for _ in range(rng.choice((0, 1, 1, 2, 4))):
        path = rng.choice([path for path in places(record) if path] or [("new",)])
        parent = record
        for key in path[:-1]:
            parent = parent[key]
        action = rng.randrange(4)
        if action == 0 and path[-1] != "new":
            del parent[path[-1]]
        elif action == 1 and isinstance(parent, dict) and path[-1] in parent:
            parent[rng.choice(["conversations", "messages", "role", "content", "image", "text", "zz"])] = parent.pop(
                path[-1]
            )
        elif action == 2 and isinstance(parent, list):
            parent.insert(rng.randrange(len(parent) + 1), copy.deepcopy(rng.choice(parent)) if parent else 1)
        else:
            parent[path[-1]] = copy.deepcopy(rng.choice(VALUES))
        if not record:
            break
    text = json.dumps(record)
    while '"IMAGE"' in text:
        text = text.replace('"IMAGE"', f'"{rng.choice(images)}"', 1)
    line = text.encode()
    if rng.random() < 0.15:  # damage of the line itself
        position = rng.randrange(len(line))
        line = rng.choice(
            [line[:position], line[:position] + bytes([rng.randrange(256)]) + line[position + 1 :], b"[" * 3000]
        )
    return line.replace(b"\n", b" ") or b"{}"


def mutated_image(rng):
    buffer = io.BytesIO()
    size = rng.choice([(32, 24), (8, 8), (1, 1), (1, 300), (64, 64)])
    mode = rng.choice(["RGB", "L", "P", "RGBA", "CMYK", "1", "I;16"])
    kinds = {"RGBA": ["PNG", "WEBP", "TIFF"], "CMYK": ["JPEG", "TIFF"], "P": ["GIF", "PNG"], "1": ["PNG", "TIFF"]}
    kind = rng.choice(kinds.get(mode, ["PNG", "TIFF"] if mode == "I;16" else ["JPEG", "PNG", "BMP", "WEBP"]))
    Image.new(mode, size).save(buffer, kind)
    data = bytearray(buffer.getvalue())
    for _ in range(rng.choice((0, 0, 1, 3, 30))):
        data[rng.randrange(len(data))] = rng.randrange(256)
    if rng.random() < 0.2:
        del data[rng.randrange(len(data)) :]
    return bytes(data)


def one_line(error):
    assert "\n" not in str(error)


def fuzz(prepare, desk, num_records, seed):
    rng = random.Random(seed)
    names = [f"{number}.{rng.choice(['png', 'jpg', 'gif'])}" for number in range(num_records // 4)]
    for name in names:
        (desk / name).write_bytes(mutated_image(rng))
    lines = [mutated(rng, names) for _ in range(num_records)]
    path = desk / "data.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n")
    dataset, report = prepare(path, on_bad_record="skip", max_length=400)
    assert report.num_records == num_records
    places = {dataset.place(index) for index in range(len(dataset))}
    listed = {finding.place for finding in report.problems}
    assert len(listed) == len(report.problems)
    assert not places & listed
    assert len(places) + len(listed) == num_records
    assert min(len(places), len(listed)) > num_records / 10, "both kinds are met"
    assert [finding.message for finding in report.problems if not (finding.reason and finding.mend)] == []
    for index in range(len(dataset)):
        item = dataset[index]
        assert (item["labels"] >= 0).any() or (item["input_ids"] >= 0).all()
    for line in lines[: num_records // 10]:  # as a file of its own, of whatever kind it then looks like
        path.write_bytes(line)
        try:
            prepare(path, on_bad_record="skip", max_length=400)
        except MMTuneError as error:
            one_line(error)


def test_500_mutated_records_and_images(prepare, desk):
    fuzz(prepare, desk, 500, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_10000_mutated_records_and_images(prepare, desk, seed):
    fuzz(prepare, desk, 2500, seed)
