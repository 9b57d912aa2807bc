"""The benchmark of actor hosts: its environment, and the cores that it counts."""

import itertools
import os
import signal
import subprocess
import sys
import time

import numpy as np

import harness
from benchmarks import sleeping
from impala_mp.config import validation

_BUSY = "import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])"
_CODE = "import time\nwhile time.process_time() < 0.5: pass\nprint(1)\ntime.sleep(600)"


def test_the_environment_sleeps_and_has_the_shape_that_it_promises():
    config = sleeping.get_config()
    validation.validate(config, num_cores=2)
    environment = sleeping.Frames()
    seen = [environment.reset(seed=0)[0]]
    start = time.monotonic()
    seen += [environment.step(0)[0] for _ in range(10)]
    assert time.monotonic() - start >= 10 * sleeping._STEP_SECS
    for before, after in itertools.pairwise(seen):
        assert environment.observation_space.contains(after)
        np.testing.assert_array_equal(before[..., 1:], after[..., :-1])
        assert not np.array_equal(before, after)


def test_cores_are_those_of_a_process_and_of_its_children():
    with subprocess.Popen(
        [sys.executable, "-c", _BUSY.format(code=_CODE)],
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        process.stdout.readline()
        used = harness.cpu_secs([process.pid])
        without = harness.cpu_secs([process.pid], generations=0)
        os.killpg(process.pid, signal.SIGKILL)
    assert 0.45 <= used < 5.0  # the kernel counts in ticks of 10 ms
    assert without <= used - 0.4
