"""The pictures for the docs: what stands in their way is a sentence."""

import sys
import types

import pytest
from PIL import Image

import pictures
from impala_mp import errors


@pytest.mark.parametrize("text", ["80", "80x", "0x5", "80x24,", "80x24x5", "-1x5", ""])
def test_a_size_that_is_none_is_refused(monkeypatch, capsys, text):
    monkeypatch.setattr(
        sys, "argv", ["pictures.py", f"--sizes={text}", "--output=o", "r"]
    )
    with pytest.raises(SystemExit, match="2"):
        pictures.main()
    assert "is no size. Name WIDTHxHEIGHT" in capsys.readouterr().err


def test_sizes_are_pairs():
    assert pictures.sizes("80x24,200x50") == [(80, 24), (200, 50)]


def test_a_run_without_its_log_is_refused(tmp_path):
    with pytest.raises(errors.BadInput, match="supervisor.log cannot be read"):
        pictures.messages(str(tmp_path), "")


def test_a_folder_that_cannot_be_made_is_refused(tmp_path, monkeypatch):
    """Nothing is drawn before."""
    file = tmp_path / "file"
    file.touch()
    state = types.SimpleNamespace(bottleneck="")
    monkeypatch.setattr(pictures, "state_at", lambda *unused: state)
    monkeypatch.setattr(pictures.status, "read", lambda *unused, processes: None)
    monkeypatch.setattr(pictures, "messages", lambda *unused: [])
    monkeypatch.setattr(sys, "argv", ["pictures.py", f"--output={file}", "run"])
    with pytest.raises(errors.BadInput, match="cannot be made"):
        pictures.main()


@pytest.fixture
def photograph(tmp_path):
    """Photographs a page with a script that pretends to be a browser."""

    def call(script):
        browser = tmp_path / "browser"
        if script:
            browser.write_text(f"#!{sys.executable}\n{script}")
            browser.chmod(0o755)
        picture = tmp_path / "page.png"
        pictures.photograph(str(browser), picture, tmp_path / "page.html", 4, 2)
        return picture

    return call


@pytest.mark.parametrize("script", ["", "raise SystemExit(1)", "pass"])
def test_a_browser_that_draws_nothing_is_refused(photograph, script):
    with pytest.raises(errors.BadInput, match=r"drew no page\.png.*Name a Chromium"):
        photograph(script)


_DRAW = """
import sys
from PIL import Image
flags = dict(flag.split("=") for flag in sys.argv[1:] if "=" in flag)
size = tuple(map(int, flags["--window-size"].split(",")))
Image.new("RGB", size, "red").save(flags["--screenshot"])
"""


def test_a_browser_draws_the_page_in_its_size(photograph):
    with Image.open(photograph(_DRAW)) as image:
        assert image.size == (4, 2)
