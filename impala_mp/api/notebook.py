"""Plot of a training in a notebook, redrawn while it runs."""

import contextlib
import sys
import time
from collections.abc import Callable
from typing import Any

from impala_mp import errors

_INTERVAL_SECS = 5.0
_SHARE = 0.2  # of the time, at most, for drawing


class LivePlot:
    """Image below the cell that is replaced by a newer one every few seconds."""

    def __init__(self, show: Callable[..., Any], draw: Callable[[], Any]) -> None:
        """Shows nothing before there is something to draw.

        Args:
          show: IPython's `display`.
          draw: returns an image; raises BadInput as long as there is none.
        """
        self._show, self._draw = show, draw
        self._handle: Any = None
        self._next = time.monotonic() + _INTERVAL_SECS

    def secs(self) -> float:
        """Returns the seconds until the next image is due."""
        return max(0.0, self._next - time.monotonic())

    def tick(self) -> None:
        """Draws if it is due."""
        if not self.secs():
            self.redraw()

    def redraw(self) -> None:
        """Draws now; a folder without records yet has no image."""
        start, pause = time.monotonic(), _INTERVAL_SECS
        with contextlib.suppress(errors.BadInput, OSError):
            image = self._draw()
            if self._handle is None:
                self._handle = self._show(image, display_id=True)
            else:
                self._handle.update(image)
            pause = max(pause, (time.monotonic() - start) / _SHARE)
        self._next = time.monotonic() + pause


def display() -> Callable[..., Any] | None:
    """Returns IPython's `display` in a cell of a notebook, else None."""
    if "IPython" not in sys.modules:
        return None
    from IPython import core, get_ipython

    shell = get_ipython()
    if shell is None or not hasattr(shell, "kernel"):  # a terminal's
        return None
    show: Callable[..., Any] = core.display_functions.display
    return show
