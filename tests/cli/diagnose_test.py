"""The command of a crash file, and its former name."""

import sys

import pytest

from impala_mp.cli import diagnose


@pytest.mark.parametrize("name", ["impala-diagnose", "impala-replay"])
def test_the_former_name_still_works_and_reports_the_new_one(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [f"/usr/bin/{name}"])
    with pytest.raises(SystemExit) as end:
        diagnose.main()
    assert end.value.code == 2
    err = capsys.readouterr().err
    assert "no file is given" in err
    assert ("is now called impala-diagnose" in err) == (name == "impala-replay")
