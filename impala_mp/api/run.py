"""A run in Python: evaluation, metrics, plots, films and the policy."""

import base64
import contextlib
import dataclasses
import functools
import os
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from ml_collections import config_dict

from impala_mp import errors, seeding
from impala_mp.api import policy as policy_lib
from impala_mp.config import by_value
from impala_mp.environments import spaces
from impala_mp.evaluation import evaluate as evaluate_lib, saved_run
from impala_mp.monitoring import curves
from impala_mp.storage import metrics as metrics_lib, trust as trust_lib, workdir

Policy = policy_lib.Policy
_TYPES = {".png": "image/png", ".svg": "image/svg+xml", ".gif": "image/gif"}


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Statistics of full-game returns, undiscounted and unclipped."""

    mean: float
    median: float
    std: float
    min: float
    max: float
    episodes: int
    low: float  # of the 95 % interval of the mean
    high: float
    returns: dict[str, list[float]]  # of each task; a single task is ""
    numbers: dict[str, dict[str, float]]  # the user's: mean, min and max by name
    protocol: str  # environment and choice of actions
    agent_steps: int  # after which the checkpoint was written


class Image(os.PathLike[str]):
    """A PNG, SVG or GIF file. A notebook shows it if it is the value of a cell."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __fspath__(self) -> str:
        return self.path

    def __repr__(self) -> str:
        return f"Image({self.path!r})"

    def _repr_mimebundle_(self, **unused: Any) -> dict[str, str]:
        with open(self.path, "rb") as file:
            data = base64.b64encode(file.read()).decode("ascii")
        kind = _TYPES[os.path.splitext(self.path)[1]]
        page = f'<img src="data:{kind};base64,{data}">'
        return {"text/plain": repr(self), "text/html": page}


class Run:
    """A run in its folder, with one of its checkpoints.

    Evaluations and films run in this process, and leave the global random states as
    they were.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        checkpoint: str | int = "newest",
        *,
        trust: bool = False,
        is_own: bool = False,
    ) -> None:
        """Reads the config of the run in `path`. `load` and `train` make runs.

        Args:
          checkpoint: newest, best, or an update.
          trust: True loads code that this user has not trained.
          is_own: whether this process has trained it.

        Raises:
          BadInput: there is no run, or its code is not trusted.
        """
        self.path = os.path.abspath(os.fspath(path))
        self.config: config_dict.ConfigDict = workdir.read_config(self.path)
        self._checkpoint = checkpoint
        if is_own:
            trust_lib.add_by_value(self.config, self.path)
        else:
            trust_lib.admit(self.config, self.path, trust)

    def __repr__(self) -> str:
        return f"Run({self.path!r}, checkpoint={self._checkpoint!r})"

    @functools.cached_property
    def _saved(self) -> saved_run.SavedRun:
        return saved_run.SavedRun(self.path, config=self.config, which=self._checkpoint)

    @functools.cached_property
    def _agent(self) -> Any:
        with _undisturbed():
            return self._saved.agent()

    @functools.cached_property
    def _agents(self) -> Any:
        with _undisturbed():
            return self._saved.agents()

    @property
    def agent_steps(self) -> int:
        """Agent steps after which the checkpoint was written."""
        return self._saved.agent_steps

    @property
    def updates(self) -> int:
        """Updates after which the checkpoint was written."""
        return self._saved.updates

    @property
    def is_finished(self) -> bool:
        """False if the training was stopped before `total_agent_steps`."""
        done = self.agent_steps >= int(self.config.total_agent_steps)
        return done or bool(self._saved.stopped)

    def evaluate(
        self, episodes: int = 100, *, greedy: bool | None = None
    ) -> Evaluation:
        """Plays whole games of each task.

        Args:
          episodes: games of each task.
          greedy: True takes the most likely actions; None: config.evaluation.greedy.

        Raises:
          BadInput: no game has ended, or there is no checkpoint.
        """
        _check_episodes(episodes)
        greedy = bool(self.config.evaluation.greedy if greedy is None else greedy)
        with _undisturbed():
            played = evaluate_lib.play(self._saved, self._agents, episodes, greedy)
        found = evaluate_lib.statistics_of(self._saved, played, greedy)
        names = {field.name for field in dataclasses.fields(Evaluation)} - {"returns"}
        return Evaluation(
            returns={k.lstrip("/"): each.returns for k, each in played.items()},
            **{name: found[name] for name in names},
        )

    def metrics(self) -> list[dict[str, Any]]:
        """Returns the records of metrics.jsonl, oldest first.

        `pandas.DataFrame(run.metrics())` makes a table of them.
        """
        return metrics_lib.read(self.path)

    def plot(
        self,
        path: str | os.PathLike[str] | None = None,
        key: str = "episode/return_mean",
        x: str = "agent_steps",
    ) -> Image:
        """Draws a metric as a PNG or SVG.

        The learning curve has every game, evaluations, restarts, resumes and live
        changes too.

        Args:
          path: file that ends in .png or .svg; None: learning_curve.png in the run's
            folder.
          key, x: metrics on the axes.

        Raises:
          BadInput: there are no records with both metrics.
        """
        file = self._file(path, "learning_curve.png", (".png", ".svg"))
        name = by_value.without_digests(self.config.environment.id)
        curves.plot({name: [self.path]}, file, key=key, x=x)
        return Image(file)

    def video(
        self, path: str | os.PathLike[str] | None = None, *, greedy: bool | None = None
    ) -> Image:
        """Films a whole game of the first task as a GIF.

        Args:
          path: file; None: video.gif in the run's folder.
          greedy: as in `evaluate`.

        Raises:
          BadInput: the environment draws no pictures.
        """
        file = self._file(path, "video.gif", (".gif",))
        greedy = bool(self.config.evaluation.greedy if greedy is None else greedy)
        with _undisturbed():
            evaluate_lib.play_task(self._saved, self._agents, 1, greedy, 0, "", file)
        return Image(file)

    def _file(
        self, path: str | os.PathLike[str] | None, name: str, endings: tuple[str, ...]
    ) -> str:
        """Returns the path of a picture. Raises BadInput if it cannot be written."""
        file = os.path.join(self.path, name) if path is None else os.fspath(path)
        folder = os.path.dirname(file) or "."
        if not file.endswith(endings):
            raise errors.BadInput(
                f"path ({file!r}) must end in {' or '.join(endings)}. Name such a file."
            )
        if os.path.isdir(file) or not os.access(folder, os.W_OK | os.X_OK):
            raise errors.BadInput(
                f"path ({file!r}) cannot be written. Name another file, in a folder"
                " that exists."
            )
        return file

    @functools.cached_property
    def policy(self) -> policy_lib.Policy:
        """The policy as a function: `action, state = run.policy(observation)`.

        Raises:
          BadInput: the run has several tasks, or no checkpoint.
        """
        if len(self._saved.tasks) > 1:
            raise errors.BadInput(
                f"environment.id ({self.config.environment.id!r}) is several tasks, and"
                " their observations are joined in training. Use run.evaluate(), or"
                " train a run of one task."
            )
        with _undisturbed():
            made = self._saved.environment(1)
        with contextlib.closing(made):
            if made.specs[0].waits:
                raise errors.BadInput(
                    f"environment.id ({self.config.environment.id!r}) is a game, and"
                    " what its players see is joined in training. Use run.evaluate()."
                )
            settings = self.config.environment
            unseen = [settings.privileged] if settings.privileged else []
            interface = spaces.Interface(
                made.unwrapped.single_observation_space,
                made.unwrapped.single_action_space,
                [*settings.ignored, *unseen],
            )
        generator = torch.Generator().manual_seed(
            seeding.torch_seed(self._saved.seed())
        )
        return policy_lib.Policy(self._agent, interface, generator)


def load(
    path: str | os.PathLike[str],
    checkpoint: str | int = "newest",
    *,
    trust: bool = False,
) -> Run:
    """Returns the run in the folder `path`, with one of its checkpoints.

    Args:
      checkpoint: newest, best, or the update of one.
      trust: True loads code that this user has not trained here. It is executed.

    Raises:
      BadInput: there is no run or no such checkpoint, or its code is not trusted.
    """
    run = Run(path, checkpoint, trust=trust)
    _ = run.agent_steps  # reads the checkpoint
    return run


def _check_episodes(episodes: int) -> None:
    if not isinstance(episodes, (int, np.integer)) or episodes < 1:
        raise errors.BadInput(
            f"episodes ({episodes!r}) must be a whole number of at least 1. Set"
            " episodes."
        )


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Restores the global random states, and leaves out the caller's defaults."""
    python, numpy_state = random.getstate(), np.random.get_state()
    dtype = torch.get_default_dtype()
    devices = list(range(torch.cuda.device_count())) if _uses_cuda() else []
    with torch.random.fork_rng(devices), torch.device("cpu"):
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)
            random.setstate(python)
            np.random.set_state(numpy_state)


def _uses_cuda() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_initialized()
