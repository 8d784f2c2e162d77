"""repeat: every record N times, and the way that needs no file."""

import json

import pytest


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_every_record_stands_n_times(tool, data_file, record, desk, capsys, read_lines, suffix):
    records = [record("What?", f"猫 {n}", id=n) for n in range(6)] + [record("half \ud83d", "x")]
    data_file(*records[:6], name="mine.json")
    lines = "\n".join(json.dumps(value) for value in records)
    (data_file(name="with_half.jsonl")).write_text(lines, encoding="utf-8")
    assert tool("repeat", "-i", "with_half.jsonl", "-o", f"out{suffix}", "-n", 200) == 0
    shown = capsys.readouterr().out
    assert "7 records x 200 = 1400 written" in shown
    assert "repeat: N" in shown
    text = (desk / f"out{suffix}").read_text(encoding="utf-8")
    assert (json.loads(text) if suffix == ".json" else read_lines(f"out{suffix}")) == records * 200
    assert "猫" in text


def test_the_help_says_that_the_config_can_do_it(tool, capsys):
    with pytest.raises(SystemExit) as stop:
        tool("repeat", "--help")
    assert stop.value.code == 0
    assert "`repeat: N`" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["-i", "none.json", "-o", "out.json", "-n", 2], "none.json: no such file"),
        (["-i", "mine.json", "-o", "mine.json", "-n", 2, "--overwrite"], "mine.json: is the input itself"),
        (["-i", "mine.json", "-o", "old.json", "-n", 2], "old.json: exists already"),
        (["-i", "mine.json", "-o", "out.txt", "-n", 2], "out.txt: a record file ends in .json or .jsonl"),
        (["-i", "mine.json", "-o", "no/out.json", "-n", 2], "no/out.json: cannot be written"),
        (["-i", "text.json", "-o", "out.json", "-n", 2], "text.json:2: a record is a JSON object (got null)"),
        (["-i", "cut.json", "-o", "out.json", "-n", 2], "cut.json:2: the JSON array has no closing ']'"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(tool, data_file, record, desk, capsys, argv, words):
    data_file(record("What?", "A cat."), name="mine.json")
    data_file(record("What?", "A cat."), name="old.json")
    (desk / "cut.json").write_text('[{"a": 1}\n')
    (desk / "text.json").write_text('[{"a": 1},\nnull]')
    before = sorted(path.name for path in desk.iterdir())
    assert tool("repeat", *argv) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith(f"repeat: {words}")
    assert shown.err.count("\n") == 1
    assert shown.out == ""
    assert sorted(path.name for path in desk.iterdir()) == before


def test_n_must_be_at_least_1(tool, capsys):
    with pytest.raises(SystemExit) as stop:
        tool("repeat", "-i", "a.json", "-o", "b.json", "-n", "0")
    assert stop.value.code == 2
    assert "must be at least 1 (got 0)" in capsys.readouterr().err


def test_overwrite_replaces_and_a_move_names_the_image_folder(tool, data_file, record, desk, capsys):
    data_file(record("<image>", "A cat.", image="1.png"), name="mine.json")
    (desk / "sub").mkdir()
    (desk / "sub" / "out.jsonl").write_text("old\n")
    assert tool("repeat", "-i", "mine.json", "-o", "sub/out.jsonl", "-n", 1, "--overwrite") == 0
    assert (desk / "sub" / "out.jsonl").read_text() == json.dumps(record("<image>", "A cat.", image="1.png")) + "\n"
    assert "image_folder: ." in capsys.readouterr().out
