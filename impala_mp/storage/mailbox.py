"""Questions to a running training, and its answers, as files in its folder.

A question is a file that appears whole. The run takes it by removing it, so that one
is answered at most once, and one that was withdrawn never.
"""

import contextlib
import json
import os
import time
from typing import Any, NamedTuple

from impala_mp import errors
from impala_mp.storage import files, workdir

_POLL_SECS = 0.02
_LAST_SECS = 2.0  # for the answer to a question that could not be withdrawn any more


class Question(NamedTuple):
    """What somebody asked; `message` is None if it cannot be read."""

    name: str
    message: Any


class NoAnswer(Exception):
    """The run did not take the question in time."""


class Mailbox:
    """The run's side: `DIR/questions/`."""

    def __init__(self, path: str) -> None:
        """Questions to an earlier run, which nobody took, are thrown away."""
        self._folder = _folder(path)
        os.makedirs(self._folder, exist_ok=True)
        for name in os.listdir(self._folder):
            if name.endswith((".question", ".answer")):
                with contextlib.suppress(FileNotFoundError):  # withdrawn
                    os.unlink(os.path.join(self._folder, name))

    def take(self) -> list[Question]:
        """Who asked first comes first."""
        names = [n for n in os.listdir(self._folder) if n.endswith(".question")]
        found = []
        for name in sorted(names):
            path = os.path.join(self._folder, name)
            message = None
            with contextlib.suppress(FileNotFoundError):  # withdrawn
                with contextlib.suppress(ValueError), open(path) as file:
                    message = json.load(file)
                os.unlink(path)
                found.append(Question(name.removesuffix(".question"), message))
        return found

    def answer(self, question: Question, message: Any) -> None:
        path = os.path.join(self._folder, f"{question.name}.answer")
        files.write_atomically(path, json.dumps(message), durable=False)


def ask(path: str, message: Any, timeout_secs: float) -> Any:
    """The answer of the run in `path`.

    Raises:
      BadInput: there is no run, or it is not alive.
      NoAnswer: within `timeout_secs`; the question is withdrawn.
    """
    if not workdir.is_live(path):
        raise errors.BadInput(
            f"the run in {path} is not alive: start it again with impala-train."
        )
    os.makedirs(_folder(path), exist_ok=True)  # the run may be starting
    name = os.path.join(_folder(path), f"{time.time_ns():020d}-{os.getpid()}")
    question, answer = f"{name}.question", f"{name}.answer"
    files.write_atomically(question, json.dumps(message), durable=False)
    if not _appears(answer, timeout_secs):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(question)
            raise NoAnswer
        if not _appears(answer, _LAST_SECS):
            raise NoAnswer
    with open(answer) as file:
        found = json.load(file)
    os.unlink(answer)
    return found


def _appears(path: str, timeout_secs: float) -> bool:
    end = time.monotonic() + timeout_secs
    while not os.path.exists(path) and time.monotonic() < end:
        time.sleep(_POLL_SECS)
    return os.path.exists(path)


def _folder(path: str) -> str:
    return os.path.join(path, "questions")
