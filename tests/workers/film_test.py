"""Films: the environment's speed, a size that can be seen, and an end in time."""

import io

import numpy as np
import pytest
from PIL import Image

from impala_mp import errors
from impala_mp.workers import film


class _Drawn:
    """Draws the number of the step as a grey level."""

    def __init__(self, fps=None, size=(40, 60)):
        self.metadata = {} if fps is None else {"render_fps": fps}
        self.unwrapped, self._size, self.steps = self, size, 0

    def frame(self):
        self.steps += 1
        return np.full((*self._size, 3), self.steps % 256, np.uint8)


def _film(environment, steps, folder):
    made = film.Film(environment)
    for _ in range(steps):
        assert made()
    made.save(str(folder / "film.gif"))
    return Image.open(io.BytesIO((folder / "film.gif").read_bytes()))


@pytest.mark.parametrize(
    ("fps", "milliseconds", "frames"),
    [(None, 40, 30), (50, 20, 30), (15, 67, 30), (100, 20, 15), ("x", 40, 30)],
)
def test_a_film_runs_at_the_speed_of_the_environment(
    tmp_path, fps, milliseconds, frames
):
    image = _film(_Drawn(fps), 30, tmp_path)
    assert image.n_frames == frames
    assert image.info["duration"] == pytest.approx(milliseconds, abs=10)  # GIF's unit
    image.seek(frames - 1)
    assert image.info["duration"] == 1000  # the end can be seen


def test_a_small_film_has_fewer_frames_and_pixels():
    made = film.Film(_Drawn(50, size=(400, 600)), small=True)
    for _ in range(30):
        made()
    assert len(made._frames) == 15
    assert made._frames[0].shape == (213, 320, 3)
    assert made.frame_milliseconds == 40


def test_small_pictures_are_enlarged(tmp_path):
    assert _film(_Drawn(), 2, tmp_path).size == (240, 160)
    assert _film(_Drawn(size=(200, 300)), 2, tmp_path).size == (300, 200)


def test_a_film_that_takes_too_long_ends():
    made = film.Film(_Drawn(), max_secs=-1.0)
    assert not made()


def test_only_a_gif_is_a_film(tmp_path):
    with pytest.raises(errors.BadInput, match="no(t an)? animated GIF"):
        film.check(str(tmp_path / "film.mp4"))
