"""Main function of the process that `im.train` starts."""

import contextlib
import json
import os
import signal
import traceback
from typing import Any

from impala_mp import errors
from impala_mp.config import fields as fields_lib, user_code
from impala_mp.runtime import launch, life_pipe, signals

JOB, OUTCOME = "job.json", "outcome.json"  # files between caller and training


def main(folder: str) -> None:
    """Trains by the job in `folder`; writes the reason of a failure there."""
    signals.exit_on_signals(os._exit)  # during the imports, which take a second
    _end_with_caller()
    from impala_mp.runtime import process_end

    process_end.leave(_code(folder))


def _end_with_caller() -> None:
    """Stops this training, as SIGTERM does, when the caller's process ends."""
    life = os.dup(0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    life_pipe.signal_at_close(life, signal.SIGTERM)


def _code(folder: str) -> int:
    """Trains; returns the exit code."""
    try:
        with open(os.path.join(folder, JOB), encoding="utf-8") as file:
            job = json.load(file)
        config = fields_lib.from_json(job["config"])
        train = launch.prepare(config)
        train(config, job["workdir"], 0, job["changes"], job["start_from"])
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    except errors.BadInput as error:
        return _leave(folder, "BadInput", str(error), 2)
    except BaseException as error:
        return _leave(folder, "RunFailed", _explain(error), 1)
    return 0


def _explain(error: BaseException) -> str:
    """Returns a sentence, or a traceback if no code of the user's has failed."""
    if isinstance(error, errors.RunFailed):
        return str(error)
    if user_code.where(error):
        return user_code.explain(error)
    return "".join(traceback.format_exception(error))


def _leave(folder: str, kind: str, text: str, code: int) -> int:
    outcome: dict[str, Any] = {"kind": kind, "text": text}
    # Without it, for example on a full disk, the caller reports the exit code.
    with (
        contextlib.suppress(OSError),
        open(os.path.join(folder, OUTCOME), "w", encoding="utf-8") as file,
    ):
        json.dump(outcome, file)
    return code
