"""Mailbox of a running training: questions and answers as files in its folder.

A question is a file that appears whole. The run takes it by removing it. So it is
answered at most once, and never after it was withdrawn.
"""

import contextlib
import json
import os
import time
from typing import Any, NamedTuple

from impala_mp import errors
from impala_mp.storage import files, workdir

_POLL_SECS = 0.02
_LAST_SECS = 2.0  # to wait for the answer once a question can no longer be withdrawn


class Question(NamedTuple):
    """One question; `message` is None if it cannot be read."""

    name: str
    message: Any


class NoAnswer(Exception):
    """No answer: the run did not take the question in time."""


class Mailbox:
    """The run's side of the mailbox: `DIR/questions/`."""

    def __init__(self, path: str) -> None:
        """Discards unanswered questions to an earlier run."""
        self._folder = _folder(path)
        os.makedirs(self._folder, exist_ok=True)
        for name in os.listdir(self._folder):
            if name.endswith((".question", ".answer")):
                with contextlib.suppress(FileNotFoundError):  # withdrawn
                    os.unlink(os.path.join(self._folder, name))

    def take(self) -> list[Question]:
        """Takes all questions, oldest first."""
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
    """Asks the run in `path`; returns its answer.

    Raises:
      BadInput: there is no live run.
      NoAnswer: no answer came within `timeout_secs`; the question is withdrawn.
    """
    if not workdir.is_live(path):
        raise errors.BadInput(
            f"the run in {path} is not alive. Resume it with impala-train."
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
