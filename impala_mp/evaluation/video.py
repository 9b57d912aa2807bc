"""A film of the first environment of an evaluation, as an animated GIF."""

import numpy as np
from PIL import Image

from impala_mp import errors
from impala_mp.environments import vector
from impala_mp.storage import files

_FRAMES_PER_SECOND = 25
_MAX_FRAMES = 3000  # two minutes


def check_name(path: str) -> None:
    """Raises BadInput unless `path` can be written as a film."""
    if not path.endswith(".gif"):
        raise errors.BadInput(
            f"--video={path} must end in .gif: animated GIF is what is written."
        )
    files.check_place("video", path)


class Film:
    """Call it before each step; it keeps the picture of environment 0."""

    def __init__(self, environment: vector.VectorEnvironment) -> None:
        self._environment = environment
        self._frames: list[np.ndarray] = []

    def __call__(self) -> bool:
        if len(self._frames) < _MAX_FRAMES:
            self._frames.append(np.array(self._environment.frame()))
        return True

    def save(self, path: str) -> None:
        images = [Image.fromarray(frame) for frame in self._frames]
        images[0].save(
            path,
            save_all=True,
            append_images=images[1:],
            duration=1000 // _FRAMES_PER_SECOND,
            loop=0,
        )
