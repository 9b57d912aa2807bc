"""Versions and machine of a run, as its folder keeps them."""

import json
import os
import platform

from impala_mp.storage import machine


def test_the_file_has_versions_and_machine(tmp_path):
    machine.record(str(tmp_path))
    found = json.loads((tmp_path / machine.NAME).read_text())
    assert found["Python"] == platform.python_version()
    assert found["torch"][0].isdigit()
    assert found["processor"].endswith(" cores")
    assert found == {"started": found["started"], **machine.describe()}


def test_nothing_of_the_environment_is_in_it(tmp_path, monkeypatch):
    monkeypatch.setenv("API_TOKEN", "s3cret-value")
    machine.record(str(tmp_path))
    text = (tmp_path / machine.NAME).read_text()
    assert "s3cret-value" not in text
    assert os.path.expanduser("~") not in text


def test_without_room_there_is_no_file(tmp_path):
    machine.record(str(tmp_path / "missing"))
    assert list(tmp_path.iterdir()) == []
