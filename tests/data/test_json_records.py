import gzip
import json
import math
import os
import tracemalloc

import pytest

from mmtune.data import json_records
from mmtune.data.record import Record
from mmtune.data.records import read_records
from mmtune.errors import DataError

TALK = {"id": 7, "text": 'a "quoted" \\ text\nof 2 lines, 眼科 \u2028', "list": [1, -2.5e3, True, None, {}, []]}


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


def values(path):
    records = list(read_records(path))
    assert not any(record.problem for record in records)
    return [record.value for record in records]


def error_of(path):
    with pytest.raises(DataError) as caught:
        values(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("ensure_ascii", [True, False])
@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 16, 1000])
def test_arrays_are_read_over_any_chunk_border(tmp_path, monkeypatch, chunk, indent, ensure_ascii):
    monkeypatch.setattr(json_records, "CHUNK_BYTES", chunk)
    expected = [TALK | {"id": number, "text": TALK["text"] * number} for number in range(5)]
    path = write(tmp_path / "data.json", json.dumps(expected, indent=indent, ensure_ascii=ensure_ascii))
    assert values(path) == expected


@pytest.mark.parametrize("chunk", [1, 2, 5, 100])
def test_arrays_of_plain_values_are_read_over_any_chunk_border(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(json_records, "CHUNK_BYTES", chunk)
    expected = [12345, -7, "text", True, False, None, [1, 2], "\u00e9\U0001f600"]
    assert values(write(tmp_path / "data.json", json.dumps(expected))) == expected


@pytest.mark.parametrize("chunk", [4, 1 << 20])
def test_json_lines_may_hold_blank_lines_and_lack_the_last_line_end(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(json_records, "CHUNK_BYTES", chunk)
    path = write(tmp_path / "data.jsonl", '\n   \n{"a": 1}\n\n{"a": 2}\r\n{"a": "\u2028"}')
    assert values(path) == [{"a": 1}, {"a": 2}, {"a": "\u2028"}]
    assert [record.line for record in read_records(path)] == [3, 5, 6]


@pytest.mark.parametrize("chunk", [3, 1 << 20])
def test_records_of_arrays_know_their_line(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(json_records, "CHUNK_BYTES", chunk)
    path = write(tmp_path / "data.json", '\n [ {"a":\n 1}, {"a": 2},\n\n{"a": "\\n"}\n,\n3]')
    assert [record.line for record in read_records(path)] == [2, 3, 5, 7]
    assert next(iter(read_records(path))).place == f"{path}:2"


def test_the_content_decides_and_not_the_name(tmp_path):
    assert values(write(tmp_path / "data.json", '{"a": 1}\n{"a": 2}\n')) == [{"a": 1}, {"a": 2}]
    assert values(write(tmp_path / "data.jsonl", '[{"a": 1}, {"a": 2}]')) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("text", ['[{"a": 1}]', '{"a": 1}\n'])
def test_a_byte_order_mark_is_passed_over(tmp_path, text):
    assert values(write(tmp_path / "data.json", text, "utf-8-sig")) == [{"a": 1}]


def test_an_array_on_one_line_is_streamed(tmp_path, monkeypatch):
    """The byte at its end breaks the file, so whoever reads the line whole sees no record."""
    monkeypatch.setattr(json_records, "CHUNK_BYTES", 100)
    path = tmp_path / "data.json"
    path.write_bytes(b'[{"a": 1}, ' + b'{"b": 2}, ' * 5000 + b"\xff")
    reading = read_records(path)
    assert [next(reading).value for _ in range(1001)] == [{"a": 1}, *[{"b": 2}] * 1000]
    with pytest.raises(DataError, match="byte 0xff"):
        list(reading)


def test_broken_json_names_the_record_too(tmp_path):
    path = write(tmp_path / "data.json", "[" + '{"a": 1}, ' * 1000 + "broken")
    assert f"{path}:1: broken JSON in record 1001: Expecting value" in error_of(path)


@pytest.mark.parametrize("opening", ["[", ""])
def test_a_record_larger_than_a_chunk_is_read_whole(tmp_path, opening):
    huge = {"text": 'word "x" ' * 400_000}
    text = json.dumps(huge)
    assert len(text) > 3 * json_records.CHUNK_BYTES
    assert values(write(tmp_path / "data.json", f"{opening}{text}{']' if opening else ''}")) == [huge]


def test_a_record_beyond_the_limit_is_an_error_and_not_a_full_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(json_records, "CHUNK_BYTES", 100)
    monkeypatch.setattr(json_records, "MAX_RECORD_BYTES", 1000)
    path = write(tmp_path / "data.json", '[{"a": "' + "never closed " * 10_000)
    assert "Unterminated string" in error_of(path)


@pytest.mark.parametrize("text", ["", " \n\t\n", "\ufeff"])
def test_an_empty_file_is_an_error(tmp_path, text):
    assert "the file is empty" in error_of(write(tmp_path / "data.json", text))


def test_an_empty_array_is_an_error(tmp_path):
    assert "the array is empty" in error_of(write(tmp_path / "data.json", " [ \n ] "))


@pytest.mark.parametrize("chunk", [4, 1 << 20])
@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ('[{"a": 1},\n{"a": nul}]', 2, "record 2: Expecting value"),
        ('[{"a": 1}\n{"a": 2}]', 2, "expected ',' or ']', got '{'"),
        ('[{"a": 1},\n\n]', 3, "record 2: Expecting value"),
        ('[{"a": 1},\n{"a": 2}\n', 3, "no closing ']'"),
        ('[{"a": 1},\n{"a": "cut o', 2, "Unterminated string"),
        ('[{"a": 1}]\n[{"a": 2}]', 2, "'[' after the closing ']'"),
        ('[{"a": 1}]\n\nx', 3, "'x' after the closing ']'"),
        ('[{"a": 1}, ' + '{"a":' * 100_000, 1, "too deep"),
        ("[", 1, "no closing ']'"),
    ],
)
def test_a_broken_array_names_its_line_after_its_good_records(tmp_path, monkeypatch, text, line, words, chunk):
    if len(text) < 1000:
        monkeypatch.setattr(json_records, "CHUNK_BYTES", chunk)
    path = write(tmp_path / "data.json", text)
    found = []
    with pytest.raises(DataError) as caught:
        found.extend(read_records(path))
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert words in str(caught.value)
    assert [record.value for record in found[:1]] == ([{"a": 1}] if len(text) > 1 else [])


LINES = [
    ('{"a": ', "broken JSON: Expecting value at column 6. Mend the line."),
    ("{", "broken JSON: Expecting property name enclosed in double quotes at column 2. A JSON lines file holds one"),
    ('{"a": 1} {"a": 2}', "broken JSON: Extra data at column 10"),
    ('{"a": "\t"}', "broken JSON: Invalid control character at column 8"),
    ('{"a":' * 100_000, "JSON nested too deep. A record is an object of plain fields."),
    (b'{"a": "caf\xe9"}', "holds the byte 0xe9, which is not UTF-8. Save the file as UTF-8."),
    (b'{"a": "\xed\xa0\xbd"}', "holds the byte 0xed, which is not UTF-8"),
    ("\0\0\0", "broken JSON: Expecting value at column 1"),
]


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize(("bad", "problem"), LINES)
def test_a_bad_line_is_a_problem_and_the_file_goes_on(tmp_path, bad, problem, ending):
    path = tmp_path / "data.jsonl"
    bad = bad if isinstance(bad, bytes) else bad.encode()
    path.write_bytes(ending.encode().join([b'{"a": 1}', b"", bad, b'{"a": "\xe2\x80\xa8"}']))
    first, broken, last = read_records(path)
    assert (first, last) == (Record({"a": 1}, path, 1), Record({"a": "\u2028"}, path, 4))
    assert (broken.value, broken.place) == (None, f"{path}:3")
    assert broken.problem.startswith(problem)


def test_a_line_beyond_the_limit_is_a_problem_and_is_never_held(tmp_path, monkeypatch):
    monkeypatch.setattr(json_records, "MAX_RECORD_BYTES", 100_000)
    monkeypatch.setattr(json_records, "CHUNK_BYTES", 10_000)
    path = tmp_path / "data.jsonl"
    good = b'{"a": "' + b"x" * (100_000 - 9) + b'"}'
    path.write_bytes(b"\n".join([good, b'{"a": "' + b"x" * 20_000_000 + b'"}', b'{"a": 3}']))
    tracemalloc.start()
    found = [(record.line, record.problem, record.value) for record in read_records(path)]
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()
    assert [line for line, _, _ in found] == [1, 2, 3]
    assert found[1][1].startswith("the line is longer than")
    assert (len(good), len(found[0][2]["a"]), found[2][2]) == (100_000, 99_991, {"a": 3})


def test_an_element_beyond_the_limit_ends_an_array(tmp_path, monkeypatch):
    monkeypatch.setattr(json_records, "MAX_RECORD_BYTES", 1000)
    path = write(tmp_path / "data.json", '[{"a": 1},\n{"a": "' + "眼" * 400 + '"}, {"a": 3}]')
    reading = read_records(path)
    assert next(reading).value == {"a": 1}
    with pytest.raises(DataError, match=r":2: record 2 is longer than"):
        next(reading)


@pytest.mark.parametrize("form", ["[%s]", "%s"])
def test_numbers_of_any_kind_are_read(tmp_path, form):
    huge = "9" * 5000
    path = write(tmp_path / "data.json", form % f'{{"id": NaN, "n": {huge}, "m": 12345678901234567890}}')
    (value,) = values(path)
    assert math.isnan(value["id"])
    assert (value["n"], value["m"]) == (math.inf, 12345678901234567890)


@pytest.mark.parametrize("chunk", [1, 1 << 20])
def test_an_array_is_read_up_to_a_byte_that_is_not_utf8(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(json_records, "CHUNK_BYTES", chunk)
    path = tmp_path / "data.json"
    path.write_bytes(b'[{"a": 1},\n{"a": "\xe7\x9c\xbc"},\n{"a": "\xff"}, {"a": 4}]')
    reading = read_records(path)
    assert [next(reading).value for _ in range(2)] == [{"a": 1}, {"a": "眼"}]
    with pytest.raises(DataError, match=r"data.json:3: holds the byte 0xff, which is not UTF-8"):
        next(reading)


def test_utf16_is_named(tmp_path):
    assert error_of(write(tmp_path / "data.json", '{"a": 1}', "utf-16")).endswith("is UTF-16. Save the file as UTF-8.")


@pytest.mark.parametrize("name", ["data.json.gz", "data.jsonl.gz", "data.ndjson.gz", "data.jsonl"])
@pytest.mark.parametrize("text", ['\n[{"a": 1},\n{"a": "眼"}]', '\ufeff\n{"a": 1}\n{"a": "眼"}\n'])
def test_gzipped_files_are_read_whatever_they_are_called(tmp_path, name, text):
    (tmp_path / name).write_bytes(gzip.compress(text.encode()))
    assert values(tmp_path / name) == [{"a": 1}, {"a": "眼"}]
    assert [record.line for record in read_records(tmp_path / name)] == [2, 3]


def test_a_gzipped_file_that_is_cut_off_ends_in_an_error(tmp_path):
    lines = "".join(json.dumps({"a": os.urandom(40).hex()}) + "\n" for _ in range(20_000)).encode()
    path = tmp_path / "data.jsonl.gz"
    path.write_bytes(gzip.compress(lines)[:-100_000])
    found = []
    with pytest.raises(DataError, match=r"jsonl.gz:\d+: the gzipped file is broken or cut off after this") as caught:
        found.extend(read_records(path))
    assert caught.value.place == found[-1].place
    assert len(found) > 1000
    path.write_bytes(b"\x1f\x8b broken")
    assert "the gzipped file is broken" in error_of(path)


def test_a_pipe_is_read(tmp_path):
    read_end, write_end = os.pipe()
    os.write(write_end, b'\n[{"a": 1}]')
    os.close(write_end)
    assert values(f"/dev/fd/{read_end}") == [{"a": 1}]
    os.close(read_end)


def test_files_that_cannot_be_read_say_why(tmp_path):
    assert f"no such file (looked in {tmp_path})" in error_of(tmp_path / "nope.json")
    assert "cannot be opened: File name too long" in error_of(tmp_path / ("x" * 300))
    assert "byte 0xe9, which is not UTF-8" in error_of(write(tmp_path / "data.json", '[{"a": "é"}]', "latin-1"))
