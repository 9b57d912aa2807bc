"""Versions and machine of a run, as its folder keeps them."""

import json
import os
import platform
import re
import subprocess

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


def test_a_checkout_has_its_commit_and_an_install_none(tmp_path, monkeypatch):
    package = tmp_path / "impala_mp"
    package.mkdir()
    monkeypatch.setattr(machine.impala_mp, "__file__", str(package / "__init__.py"))
    assert machine.describe()["commit"] == "none"
    for command in (
        ["init", "-q"],
        [
            "-c",
            "user.name=a",
            "-c",
            "user.email=a",
            "commit",
            "-qm",
            "a",
            "--allow-empty",
        ],
    ):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    commit = machine.describe()["commit"]
    assert re.fullmatch("[0-9a-f]{12}", commit)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "another"))  # in a hook of another
    assert machine.describe()["commit"] == commit
    monkeypatch.delenv("GIT_DIR")
    (tmp_path / "file").write_text("")
    subprocess.run(["git", "-C", str(tmp_path), "add", "file"], check=True)
    assert machine.describe()["commit"] == f"{commit}, with changes"
    monkeypatch.setenv("PATH", "")  # no git
    assert machine.describe()["commit"] == "unknown"
