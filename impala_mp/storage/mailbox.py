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
_MAX_QUESTIONS = 100  # taken at a time
_MAX_BYTES = 2**16  # of a question


class Question(NamedTuple):
    """One question; `message` is None if it cannot be read, or is a stranger's."""

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
        files.remove_stale(self._folder)
        for name in os.listdir(self._folder):
            if name.endswith((".question", ".answer")):
                with contextlib.suppress(OSError):  # withdrawn, or no file
                    os.unlink(os.path.join(self._folder, name))

    def take(self) -> list[Question]:
        """Takes all questions, oldest first; leaves what it cannot remove."""
        names = [n for n in os.listdir(self._folder) if n.endswith(".question")]
        found = []
        for name in sorted(names)[:_MAX_QUESTIONS]:
            path = os.path.join(self._folder, name)
            message = _message(path)
            with contextlib.suppress(OSError):  # withdrawn, or no file
                os.unlink(path)
                found.append(Question(name.removesuffix(".question"), message))
        return found

    def answer(self, question: Question, message: Any) -> None:
        path = os.path.join(self._folder, f"{question.name}.answer")
        files.write_atomically(path, json.dumps(message), durable=False)


def _message(path: str) -> Any:
    """Reads a question of this user; None if it is none."""
    try:
        with files.open_to_read(path, links=False) as file:
            if os.fstat(file.fileno()).st_uid != os.geteuid():
                return None
            return files.from_json(file.read(_MAX_BYTES))
    except (OSError, ValueError):
        return None


def ask(path: str, message: Any, timeout_secs: float) -> Any:
    """Asks the run in `path`; returns its answer.

    Raises:
      BadInput: there is no live run, or it is another user's.
      NoAnswer: no answer came within `timeout_secs`; the question is withdrawn.
    """
    if not workdir.is_live(path):
        raise errors.BadInput(
            f"the run in {path} is not alive. Resume it with impala-train."
        )
    name = os.path.join(_folder(path), f"{time.time_ns():020d}-{os.getpid()}")
    question, answer = f"{name}.question", f"{name}.answer"
    try:
        os.makedirs(_folder(path), exist_ok=True)  # the run may be starting
        files.write_atomically(question, json.dumps(message), durable=False)
    except OSError as error:
        raise errors.BadInput(
            f"the run in {path} cannot be asked ({error}). Ask as the user who started"
            " it."
        ) from error
    if not _appears(answer, timeout_secs):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(question)
            raise NoAnswer
        if not _appears(answer, _LAST_SECS):
            raise NoAnswer
    try:
        found = files.read_json(answer)
        os.unlink(answer)
    except (OSError, ValueError) as error:
        raise errors.BadInput(
            f"the answer in {answer} cannot be read ({error}). Ask again."
        ) from error
    return found


def _appears(path: str, timeout_secs: float) -> bool:
    end = time.monotonic() + timeout_secs
    while not os.path.exists(path) and time.monotonic() < end:
        time.sleep(_POLL_SECS)
    return os.path.exists(path)


def _folder(path: str) -> str:
    return os.path.join(path, "questions")
