"""Growth of a process over a soak, and the verdict on runs that end or fail."""

import json
import sys

import pytest

import soak
from faults import verdict


@pytest.fixture(autouse=True)
def _without_an_evaluation(monkeypatch):
    monkeypatch.setattr(verdict, "_evaluated", lambda *unused: 0.0)


@pytest.mark.integration
def test_a_soak_of_seconds_ends_with_a_verdict(tmp_path):
    report = soak.soak(0.03, 0, tmp_path)
    assert report["reasons"] == ["the final return is 0.0, below 0.9"]
    assert report["verdict"] == "fail"
    assert report["agent_steps"] > 0
    ((_, sample),) = json.loads((tmp_path / "samples.json").read_text())
    assert sample["supervisor.descriptors"] > 0


@pytest.mark.integration
def test_a_training_that_fails_is_a_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(soak, "_CATCH", tmp_path / "missing.py")
    report = soak.soak(1.0, 0, tmp_path)
    assert report["verdict"] == "fail"
    assert "the run ended with exit code 2" in report["reasons"][0]
    assert report["growth"] == {}


@pytest.mark.parametrize("flag", ["--minutes=0.0", "--minutes=nan", "--seed=-1"])
def test_bad_arguments_are_refused(monkeypatch, capsys, flag):
    monkeypatch.setattr(sys, "argv", ["soak.py", flag])
    with pytest.raises(SystemExit, match="2"):
        soak.main()
    assert f"{flag} must be " in capsys.readouterr().err


def test_growth_is_that_of_the_second_half_beyond_noise():
    samples = [
        (
            float(second),
            {
                "leak": 100.0 + 0.5 * second,
                "early": 100.0 + min(second, 40),
                "noisy": 3.0 + second % 2,
                **({"once": 1.0} if second == 90 else {}),
            },
        )
        for second in range(101)
    ]
    table = soak.growth(samples)
    assert {name: row["flat"] for name, row in table.items()} == {
        "leak": False,
        "early": True,
        "noisy": True,
    }
    assert table["leak"]["growth"] == pytest.approx(25.0)
    assert soak.growth(samples[:1]) == soak.growth([]) == {}
