import json
import os
import sys

import pytest
from reading import error_of

from mmtune.data.record import Record
from mmtune.data.records import READERS, data_files, read_records


def write_lines(path, *values):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return path


@pytest.fixture
def parts(desk):
    return [write_lines(desk / "parts" / f"part-{number:03}.jsonl", {"a": number}) for number in range(12)]


@pytest.mark.parametrize(
    ("pattern", "numbers"),
    [
        ("parts/part-00*.jsonl", range(10)),
        ("**/part-01[01].jsonl", [10, 11]),
        ("parts/part-{008..010}.jsonl", [8, 9, 10]),
        ("parts/part-{003,001}.jsonl", [3, 1]),
        ("parts/part-{00,01}[1].jsonl", [1, 11]),
    ],
)
def test_patterns_name_files_in_order(parts, pattern, numbers):
    assert [file.resolve() for file in data_files(pattern)] == [parts[number] for number in numbers]
    records = list(read_records(pattern))
    assert [record.value for record in records] == [{"a": number} for number in numbers]
    assert [(record.path.resolve(), record.line) for record in records] == [(parts[number], 1) for number in numbers]


@pytest.mark.parametrize("name", ["data[1].jsonl", "a{b}.jsonl", "a{1..2}.jsonl", "what?.jsonl"])
def test_a_file_whose_name_looks_like_a_pattern_is_itself(desk, name):
    write_lines(desk / name, {"a": 1})
    write_lines(desk / "data1.jsonl", {"a": 2})
    assert list(read_records(name)) == [Record({"a": 1}, data_files(name)[0], 1)]


def test_missing_shards_are_counted_before_anything_is_read(parts, desk):
    parts[9].unlink()
    message = error_of("parts/part-{008..013}.jsonl")
    assert f"3 of 6 files are missing, such as {desk}/parts/part-009.jsonl. Mend the pattern." in message
    assert "no file matches (looked at " in error_of("parts/*.json")
    assert "the braces do not pair" in error_of("parts/part-{008..010.jsonl")


def test_folders_hold_shards_of_one_kind(desk):
    folder = desk / "shards"
    folder.mkdir()
    assert "this is a folder without parquet files, tar files or a saved data set" in error_of(folder)
    for name in ("b.tar", "a.tar", ".hidden.tar", "notes.txt"):
        (folder / name).touch()
    assert data_files(folder) == [folder / "a.tar", folder / "b.tar"]
    (folder / "a.parquet").touch()
    assert "holds parquet files and tar files. Name one kind by a pattern" in error_of(folder)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.tar.gz", "is a compressed tar, in which no image can be reached alone. Unpack it"),
        ("a.TGZ", "is a compressed tar"),
        ("a.xls", "Save it as .xlsx"),
        ("a.zip", "Unpack it"),
    ],
)
def test_files_of_kinds_that_are_not_read_say_so(desk, name, words):
    (desk / name).touch()
    assert words in error_of(name)


@pytest.mark.parametrize("ending", [*READERS, ".json"])
def test_every_kind_of_file_says_when_it_is_missing_or_empty(desk, ending):
    assert f"nope{ending}: no such file (looked in {desk})" in error_of(f"nope{ending}")
    (desk / f"empty{ending}").touch()
    if ending == ".tar":
        (record,) = read_records("empty.tar")
        assert "the shard cannot be read: empty file" in record.problem
    else:
        assert error_of(f"empty{ending}").startswith(f"empty{ending}: ")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_named(desk):
    write_lines(desk / "data.jsonl", {"a": 1}).chmod(0)
    assert "no permission to read it" in error_of("data.jsonl")


def test_only_sources_with_splits_take_one(parts):
    assert "has no splits (got 'test'). Only saved data sets" in error_of(parts[0], split="test")


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [
        ("a.parquet", "pyarrow.parquet", "pyarrow"),
        ("a.xlsx", "openpyxl", "openpyxl"),
        ("a{1..2}.tar", "braceexpand", "braceexpand"),
        ("hub:owner/name", "datasets", "datasets"),
    ],
)
def test_a_missing_package_is_one_line_with_the_command(desk, monkeypatch, name, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    (desk / "a.parquet").touch()
    (desk / "a.xlsx").touch()
    message = f"{name}: needs the package {package}, which is not installed. Run: pip install 'mmtune[data]'"
    assert error_of(name) == message
