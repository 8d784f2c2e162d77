"""What the tests of data sources share: a source in, the one line that says why it cannot be read."""

import pytest

from mmtune.data.records import read_records
from mmtune.errors import DataError


def error_of(path, **options):
    with pytest.raises(DataError) as caught:
        list(read_records(path, **options))
    assert "\n" not in str(caught.value)
    return str(caught.value)
