"""What docs/data.md shows is what is read."""

import csv
import io
import json
import re

import pytest
from readme import ROOT

from mmtune.data.formats import FORMATS, KEYS_OF_FORMATS, detect_format, parse_record
from mmtune.data.record import Record
from mmtune.data.records import READERS

PAGE = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^### (\w+)\n\n```json\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_every_format_has_a_section_with_an_example():
    assert {name for name, _ in EXAMPLES} == {*FORMATS}


@pytest.mark.parametrize(("name", "text"), EXAMPLES)
def test_the_example_of_a_format_is_detected_as_that(name, text):
    record = Record(json.loads(text), "docs/data.md", 1)
    assert detect_format(record) == name
    assert parse_record(record) == parse_record(record, name)


def test_the_example_of_a_table_is_read(tmp_path):
    text = re.search(r"^```csv\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)[1]
    for row in csv.DictReader(io.StringIO(text)):
        assert parse_record(Record(row, "docs/data.md", 1)).images == (row["image"],)


def test_the_order_of_detection_is_told():
    order = re.search(r"of this order counts: (.*?)\. Keys", PAGE, re.DOTALL)[1]
    told = [name for name in re.findall(r"`(\w+)`", order) if name in FORMATS]
    table = [name for name, _ in KEYS_OF_FORMATS]
    assert [name for name in told if name != "sharegpt"] == list(dict.fromkeys(table))


def test_every_kind_of_file_is_told():
    assert all(f"{ending}`" in PAGE for ending in (*READERS, ".json", ".jsonl", ".ndjson", ".gz"))
