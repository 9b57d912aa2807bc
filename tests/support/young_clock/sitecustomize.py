"""A monotonic clock that starts at 1 s, as on a machine that has just been booted.

Every process reads it that has this folder on PYTHONPATH and YOUNG_CLOCK_ZERO_NS, the
time at which to begin, in its environment.
"""

import os
import time

_zero_ns = int(os.environ["YOUNG_CLOCK_ZERO_NS"]) - 10**9
_real_ns = time.monotonic_ns

time.monotonic_ns = lambda: _real_ns() - _zero_ns
time.monotonic = lambda: time.monotonic_ns() * 1e-9
