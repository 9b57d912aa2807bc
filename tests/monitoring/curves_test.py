"""Learning curves from the numbers of runs."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from impala_mp import errors
from impala_mp.monitoring import curves
from impala_mp.storage import metrics


@pytest.fixture
def runs(tmp_path):
    rng = np.random.default_rng(0)
    folders = [str(tmp_path / f"run{i}") for i in range(3)]
    for folder in folders:
        (tmp_path / folder).mkdir()
        writer = metrics.Writer(folder)
        for step in range(0, 1000, 100):
            record = {"agent_steps": step, "env_frames": step, "updates": step}
            noise = rng.normal()
            record |= {"time_secs": step, "episode/return_mean": step / 10 + noise}
            writer.write(record | {"evaluation/return_mean": step / 10})
        writer.close()
    return folders


def test_a_band_is_students_interval():
    x = np.arange(3.0)
    series = [(x, x + offset) for offset in (-1.0, 0.0, 1.0)]
    grid, mean, half = curves.band(series)
    np.testing.assert_allclose(mean, grid)
    np.testing.assert_allclose(half, 4.30 * 1.0 / 3**0.5, rtol=1e-6)


def test_a_band_covers_what_all_runs_cover():
    grid, _, _ = curves.band(
        [(np.array([0.0, 5.0]), np.zeros(2)), (np.array([1.0, 9.0]), np.zeros(2))]
    )
    assert (grid[0], grid[-1]) == (1.0, 5.0)


def test_a_picture_is_drawn(runs, tmp_path):
    path = tmp_path / "curve.png"
    curves.plot({"three": runs, "one": runs[:1]}, str(path))
    assert len(Image.open(path).convert("RGB").getcolors(100_000)) > 10


def test_numbers_that_are_not_there_are_refused(runs, tmp_path):
    with pytest.raises(errors.BadInput, match="It has agent_steps"):
        curves.plot({"a": runs}, str(tmp_path / "x.png"), key="loss/none")
    with pytest.raises(errors.BadInput, match="none at all"):
        curves.plot({"a": [str(tmp_path)]}, str(tmp_path / "x.png"))
    assert not (tmp_path / "x.png").exists()


@pytest.mark.integration
def test_the_tool(runs, tmp_path):
    path = tmp_path / "tool.png"
    command = [sys.executable, "tools/plot.py", f"--output={path}"]
    subprocess.run([*command, f"all={','.join(runs)}"], check=True, timeout=120)
    assert path.stat().st_size > 1000
    nowhere = f"--output={tmp_path / 'no' / 'tool.png'}"
    for arguments in ((*command, "nowhere"), (*command[:2], nowhere, runs[0])):
        bad = subprocess.run(arguments, capture_output=True, text=True, timeout=120)
        assert bad.returncode == 2
        assert "Traceback" not in bad.stderr
    assert "which does not exist. Make it" in bad.stderr
