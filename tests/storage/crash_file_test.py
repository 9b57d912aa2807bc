"""Files that are no crash files."""

import pytest

from impala_mp import errors
from impala_mp.storage import crash_file


def test_something_else_is_refused(tmp_path):
    (tmp_path / "other.pt").write_bytes(b"nothing")
    with pytest.raises(errors.BadInput, match="no crash file"):
        crash_file.load(str(tmp_path / "other.pt"))
