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
_MIN_MILLISECONDS = 20  # of a frame: viewers show shorter ones slowly


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
        self, environment: vector.VectorEnvironment, max_secs: float = 3600.0
    ) -> None:
        """`max_secs` ends the film, and the game, when drawing takes too long."""
        self._environment = environment
        self._end = time.monotonic() + max_secs
        self._frames: list[np.ndarray] = []
        fps = environment.unwrapped.metadata.get("render_fps")
        known = isinstance(fps, (int, float)) and 0.0 < fps < 1e4
        milliseconds = 1000.0 / (fps if known else _FRAMES_PER_SECOND)
        self._every = max(1, round(_MIN_MILLISECONDS / milliseconds))
        self.frame_milliseconds = max(_MIN_MILLISECONDS, round(milliseconds))
        self._steps = 0

    def __call__(self) -> bool:
        if self._steps % self._every == 0 and len(self._frames) < _MAX_FRAMES:
            self._frames.append(np.array(self._environment.frame()))
        self._steps += 1
        return time.monotonic() < self._end

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
