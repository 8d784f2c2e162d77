"""What the tests of formats share: one record in, its conversation or the one line that says why not."""

import pytest

from mmtune.data.formats import parse_record
from mmtune.data.record import Record
from mmtune.errors import DataError


def parse(value, format_name=None):
    return parse_record(Record(value, "data.json", 8), format_name)


def error_of(value, format_name=None):
    with pytest.raises(DataError) as caught:
        parse(value, format_name)
    assert caught.value.place == "data.json:8"
    assert "\n" not in str(caught.value)
    return caught.value.message


def contents(conversation):
    return [(message.role, message.content) for message in conversation.messages]
