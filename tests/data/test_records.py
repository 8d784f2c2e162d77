import json

import pytest

from mmtune.data import records
from mmtune.data.records import read_records
from mmtune.errors import DataError

TALK = {"id": 7, "text": 'a "quoted" \\ text\nof 2 lines, 眼科 \u2028', "list": [1, -2.5e3, True, None, {}, []]}


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


def values(path):
    return [record.value for record in read_records(path)]


def error_of(path):
    with pytest.raises(DataError) as caught:
        values(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("ensure_ascii", [True, False])
@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 16, 1000])
def test_arrays_are_read_over_any_chunk_border(tmp_path, monkeypatch, chunk, indent, ensure_ascii):
    monkeypatch.setattr(records, "CHUNK_CHARS", chunk)
    expected = [TALK | {"id": number, "text": TALK["text"] * number} for number in range(5)]
    path = write(tmp_path / "data.json", json.dumps(expected, indent=indent, ensure_ascii=ensure_ascii))
    assert values(path) == expected


@pytest.mark.parametrize("chunk", [1, 2, 5, 100])
def test_arrays_of_plain_values_are_read_over_any_chunk_border(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(records, "CHUNK_CHARS", chunk)
    expected = [12345, -7, "text", True, False, None, [1, 2], "\u00e9\U0001f600"]
    assert values(write(tmp_path / "data.json", json.dumps(expected))) == expected


@pytest.mark.parametrize("chunk", [4, 1 << 20])
def test_json_lines_may_hold_blank_lines_and_lack_the_last_line_end(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(records, "CHUNK_CHARS", chunk)
    path = write(tmp_path / "data.jsonl", '\n   \n{"a": 1}\n\n{"a": 2}\r\n{"a": "\u2028"}')
    assert values(path) == [{"a": 1}, {"a": 2}, {"a": "\u2028"}]
    assert [record.line for record in read_records(path)] == [3, 5, 6]


@pytest.mark.parametrize("chunk", [3, 1 << 20])
def test_records_of_arrays_know_their_line(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(records, "CHUNK_CHARS", chunk)
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
    monkeypatch.setattr(records, "CHUNK_CHARS", 100)
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
    assert len(text) > 3 * records.CHUNK_CHARS
    assert values(write(tmp_path / "data.json", f"{opening}{text}{']' if opening else ''}")) == [huge]


def test_a_record_beyond_the_limit_is_an_error_and_not_a_full_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "CHUNK_CHARS", 100)
    monkeypatch.setattr(records, "MAX_RECORD_CHARS", 1000)
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
        ('{"a": 1}\n{"a": \n', 2, "broken JSON: Expecting value at column"),
        ('{\n"a": 1}', 1, "one whole record a line"),
        ('{"a": 1} {"a": 2}', 1, "Extra data"),
        ('[{"a": 1},\n{"a": nul}]', 2, "record 2: Expecting value"),
        ('[{"a": 1}\n{"a": 2}]', 2, "expected ',' or ']', got '{'"),
        ('[{"a": 1},\n\n]', 3, "record 2: Expecting value"),
        ('[{"a": 1},\n{"a": 2}\n', 3, "no closing ']'"),
        ('[{"a": 1},\n{"a": "cut o', 2, "Unterminated string"),
        ('[{"a": 1}]\n[{"a": 2}]', 2, "'[' after the closing ']'"),
        ('[{"a": 1}]\n\nx', 3, "'x' after the closing ']'"),
        ("[" + '{"a":' * 100_000, 1, "too deep"),
        ('{"a":' * 100_000, 1, "too deep"),
        ("[", 1, "no closing ']'"),
    ],
)
def test_broken_json_names_its_line(tmp_path, monkeypatch, text, line, words, chunk):
    if len(text) < 1000:
        monkeypatch.setattr(records, "CHUNK_CHARS", chunk)
    path = write(tmp_path / "data.json", text)
    message = error_of(path)
    assert message.startswith(f"{path}:{line}: ")
    assert words in message


def test_files_that_cannot_be_read_say_why(tmp_path):
    assert f"no such file (looked in {tmp_path})" in error_of(tmp_path / "nope.json")
    assert "this is a folder" in error_of(tmp_path)
    assert "byte 0xe9, which is not UTF-8" in error_of(write(tmp_path / "data.json", '[{"a": "é"}]', "latin-1"))
