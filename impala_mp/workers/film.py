"""Films of games, as animated GIFs."""

import io
import time

import numpy as np
from PIL import Image

from impala_mp import errors
from impala_mp.environments import vector
from impala_mp.storage import files

_FRAMES_PER_SECOND = 25  # unless the environment's metadata has render_fps
_MAX_FRAMES = 3000  # two minutes
_MIN_SIDE = 160  # pixels; smaller pictures are enlarged
_SMALL_SIDE = 320  # pixels, of the longer side of a small film
_MIN_MILLISECONDS = 20  # of a frame: viewers show shorter ones slowly
_SMALL_MILLISECONDS = 40  # likewise, of a small film


def check(path: str) -> None:
    """Raises BadInput unless `path` can be written as a film."""
    if not path.endswith(".gif"):
        raise errors.BadInput(
            f"--video={path} is not an animated GIF. Use a name that ends in .gif."
        )
    files.check_place("video", path)


class Film:
    """Recorder of copy 0; called before each step.

    A film of a fast environment leaves out frames, and keeps its speed.
    """

    def __init__(
        self,
        environment: vector.VectorEnvironment,
        max_secs: float = 3600.0,
        small: bool = False,
    ) -> None:
        """Begins a film.

        Args:
          max_secs: ends the film, and the game, when drawing takes too long.
          small: a tenth of the time and space: fewer frames and pixels.
        """
        self._environment, self._small = environment, small
        self._end = time.monotonic() + max_secs
        self._frames: list[np.ndarray] = []
        fps = environment.unwrapped.metadata.get("render_fps")
        known = isinstance(fps, (int, float)) and 0.0 < fps < 1e4
        milliseconds = 1000.0 / (fps if known else _FRAMES_PER_SECOND)
        shortest = _SMALL_MILLISECONDS if small else _MIN_MILLISECONDS
        self._every = max(1, round(shortest / milliseconds))
        self.frame_milliseconds = round(self._every * milliseconds)
        self._steps = 0

    def __call__(self) -> bool:
        if self._steps % self._every == 0 and len(self._frames) < _MAX_FRAMES:
            self._frames.append(self._picture())
        self._steps += 1
        return time.monotonic() < self._end

    def _picture(self) -> np.ndarray:
        frame = np.array(self._environment.frame())
        factor = max(frame.shape[:2]) / _SMALL_SIDE
        if not self._small or factor <= 1.0:
            return frame
        size = [max(1, round(side / factor)) for side in frame.shape[1::-1]]
        return np.asarray(Image.fromarray(frame).resize((size[0], size[1])))

    def save(self, path: str) -> None:
        """Writes the film; the last picture stays for a second."""
        images = [Image.fromarray(_enlarged(frame)) for frame in self._frames]
        durations = [self.frame_milliseconds] * len(images)
        durations[-1] = 1000
        film = io.BytesIO()
        images[0].save(
            film,
            format="GIF",
            save_all=True,
            append_images=images[1:],
            duration=durations,
            loop=0,
        )
        files.write_atomically(path, film.getvalue(), durable=False)


def _enlarged(frame: np.ndarray) -> np.ndarray:
    """Repeats the pixels of a small picture a whole number of times."""
    factor = -(-_MIN_SIDE // min(frame.shape[:2]))
    return frame.repeat(factor, 0).repeat(factor, 1) if factor > 1 else frame
