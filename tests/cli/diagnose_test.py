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
    assert "one file is required, but none is given. Use: impala-diagnose DIR" in err
    assert ("is now called impala-diagnose" in err) == (name == "impala-replay")


@pytest.mark.parametrize("arguments", [["FILE", "--trust"], ["--trust", "FILE"]])
def test_a_file_may_have_flags_beside_it(arguments, monkeypatch, capsys, tmp_path):
    file = str(tmp_path / "1.pt")
    arguments = [each.replace("FILE", file) for each in arguments]
    monkeypatch.setattr(sys, "argv", ["impala-diagnose", *arguments])
    with pytest.raises(SystemExit) as end:
        diagnose.main()
    assert end.value.code == 2
    assert f"{file} does not exist" in capsys.readouterr().err
