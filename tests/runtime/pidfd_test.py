"""Descriptors of processes, also on a Python or a kernel without them."""

import errno
import os
import select
import signal
import subprocess

import pytest

import impala_mp as im
from impala_mp import errors
from impala_mp.runtime import allocation, pidfd, resources
from impala_mp.transport import kernel
from tests.support import builders


@pytest.fixture
def sleeper():
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def test_a_descriptor_signals_its_process_and_shows_its_end(sleeper, monkeypatch):
    monkeypatch.delattr(os, "pidfd_open")
    monkeypatch.delattr(signal, "pidfd_send_signal")
    descriptor = pidfd.of(sleeper.pid)
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    assert not poll.poll(0)
    pidfd.send_signal(descriptor, signal.SIGTERM)
    assert poll.poll(10_000)
    assert sleeper.wait() == -signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        pidfd.send_signal(descriptor, signal.SIGTERM)
    with pytest.raises(ProcessLookupError):
        pidfd.of(sleeper.pid)
    os.close(descriptor)


@pytest.fixture
def refuse(monkeypatch):
    def refuse(number):
        def call(*arguments):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(kernel, "call", call)

    return refuse


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
def test_an_old_kernel_is_one_sentence_before_anything_starts(tmp_path, refuse, number):
    config = builders.config()
    seats = allocation.make_topology(config, 2)
    refuse(number)
    with pytest.raises(errors.BadInput, match=r"pidfd_open is refused \(.*Linux 5\.3"):
        resources.check_descriptors(config, seats)
    with pytest.raises(errors.BadInput, match="pidfd_open is refused"):
        im.train("Catch", workdir=tmp_path / "run")
    assert not list(tmp_path.iterdir())
    config.runtime.mode = "lockstep"  # without children
    assert resources.check_descriptors(config, seats)


def test_another_failure_is_no_old_kernel(refuse):
    refuse(errno.EMFILE)
    with pytest.raises(OSError, match="Too many open files"):
        pidfd.check()
