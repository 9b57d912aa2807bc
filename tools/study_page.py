"""Statistics and the page of a study: what `tools/study.py --page` writes.

Means over few seeds are uncertain. So the page has the interquartile mean with a
bootstrap interval, and performance profiles (Agarwal et al. 2021, arXiv 2108.13264),
beside each seed's return, the time, the machine and the code that made it.
"""

import json
import pathlib
import re
from typing import Any, NamedTuple

import numpy as np

from impala_mp import errors
from impala_mp.monitoring import curves, figures
from impala_mp.storage import machine

_RESAMPLES = 5000
_POINTS = 201  # of a profile


class Seed(NamedTuple):
    """One finished run."""

    mean_return: float
    agent_steps: int
    secs: float  # until its final evaluation
    cores: int  # of the machine; 0: unknown
    facts: dict[str, str]  # of machine.json, which a run on a full disk lacks


def read_seed(folder: pathlib.Path, mean_return: float) -> Seed:
    evaluation = json.loads((folder / "evaluation.json").read_text())
    final = next(iter(evaluation.values()))
    kept = folder / machine.NAME
    facts = json.loads(kept.read_text()) if kept.exists() else {}
    cores = re.search(r"(\d+) cores$", facts.get("processor", ""))
    count = int(cores[1]) if cores else 0
    return Seed(mean_return, final["agent_steps"], final["time_secs"], count, facts)


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """Returns the mean over the last axis, without a quarter at each end.

    The number left out at an end is rounded down: three seeds keep all.
    """
    cut = values.shape[-1] // 4
    kept = np.sort(values, -1)[..., cut : values.shape[-1] - cut]
    mean: np.ndarray = kept.mean(-1)
    return mean


def interval(groups: list[np.ndarray], seed: int = 0) -> tuple[float, float]:
    """Returns the 95 % bootstrap interval of the interquartile mean of all groups.

    Seeds are drawn with replacement within each group, which is one experiment.
    """
    rng = np.random.default_rng(seed)
    drawn = [
        group[rng.integers(len(group), size=(_RESAMPLES, len(group)))]
        for group in groups
    ]
    means = interquartile_mean(np.concatenate(drawn, -1))
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def normalised(
    returns: dict[str, list[float]], scores: dict[str, list[float]]
) -> list[np.ndarray]:
    """Returns (return - low) / (high - low) of each seed, by experiment.

    Raises:
      BadInput: an experiment has no pair of scores, or both are equal.
    """
    groups = []
    for name, values in returns.items():
        if name not in scores:
            known = ", ".join(scores) or "none"
            raise errors.BadInput(f"--scores has no {name}. It has {known}.")
        low, high = scores[name]
        if low == high:
            raise errors.BadInput(f"--scores has {low} twice for {name}: name two.")
        groups.append((np.array(values) - low) / (high - low))
    return groups


def profile(groups: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Returns (score, share of all runs whose score is above it)."""
    scores = np.concatenate(groups)
    taus = np.linspace(min(0.0, scores.min()), max(1.0, scores.max()), _POINTS)
    return taus, (scores > taus[:, None]).mean(1)


def _draw_profile(groups: list[np.ndarray], path: str) -> None:
    taus, shares = profile(groups)
    figure, axes = figures.make()
    axes.step(taus, shares, where="post", **figures.style(0))
    axes.set_xlabel("normalised return: 0 and 1 are the two reference scores")
    axes.set_ylabel("share of runs above it")
    axes.set_ylim(0.0, 1.02)
    figures.write(figure, path)


def _line(name: str, seeds: list[Seed], jobs: int) -> str:
    values = np.array([seed.mean_return for seed in seeds])
    low, high = interval([values])
    spread = f"{low:.4g} to {high:.4g}" if len(values) > 1 else "one seed"
    hours = sum(seed.secs * seed.cores for seed in seeds) / jobs / 3600.0
    secs = sorted(seed.secs for seed in seeds)
    steps = sorted({seed.agent_steps for seed in seeds})
    cells = (
        f"`{name}`",
        ", ".join(f"{value:.4g}" for value in values),
        f"{interquartile_mean(values):.4g} ({spread})",
        " to ".join(f"{each:,}" for each in dict.fromkeys((steps[0], steps[-1]))),
        f"{secs[0]:,.0f} to {secs[-1]:,.0f}",
        f"{hours:.2f}",
    )
    return f"| {' | '.join(cells)} |"


def _machines(groups: dict[str, list[Seed]]) -> list[str]:
    """Returns a line for each different machine and code that the runs had."""
    wanted = ("processor", "GPU", "torch", "Python", "impala_mp", "commit")
    lines = {
        ", ".join(f"{key} {seed.facts.get(key, 'unknown')}" for key in wanted)
        for seeds in groups.values()
        for seed in seeds
    }
    return [f"- {line}" for line in sorted(lines)]


def write(
    page: pathlib.Path,
    command: str,
    folders: dict[str, list[pathlib.Path]],
    returns: dict[str, list[float]],
    scores: dict[str, list[float]] | None,
    jobs: int = 1,
    checkpoint: str = "newest",
) -> None:
    """Writes the page, and its figures into figures/ beside it.

    Args:
      jobs: runs at a time on the same cores.
      checkpoint: that has the returns.

    Raises:
      BadInput: an experiment has no pair of `scores`.
    """
    groups = {
        name: [
            read_seed(folder, mean)
            for folder, mean in zip(runs, returns[name], strict=True)
        ]
        for name, runs in folders.items()
    }
    pictures = page.parent / "figures"
    pictures.mkdir(parents=True, exist_ok=True)
    drawn = {name: [str(folder) for folder in runs] for name, runs in folders.items()}
    curves.plot(drawn, str(pictures / f"{page.stem}.png"))
    lines = [
        f"# {page.stem.replace('-', ' ').replace('_', ' ').capitalize()}",
        "",
        "Written by",
        "",
        f"```text\n{command}\n```",
        "",
        f"Returns are means of 100 full games of the `{checkpoint}` checkpoint.",
        "IQM is the interquartile mean over seeds, with its 95 % bootstrap interval.",
        "Seconds count from the start of a run to its final evaluation. Core-hours are",
        "the cores of each run over its time, divided by the runs that shared them.",
        "",
        "| experiment | return, by seed | IQM | agent steps | seconds | core-hours |",
        "|---|---|---|---|---|---|",
        *(_line(name, seeds, jobs) for name, seeds in groups.items()),
        "",
        f"![Learning curves](figures/{page.stem}.png)",
        "",
    ]
    if scores is not None:
        every = normalised(returns, scores)
        low, high = interval(every)
        mean = interquartile_mean(np.concatenate(every))
        _draw_profile(every, str(pictures / f"{page.stem}-profile.png"))
        lines += [
            "IQM over all experiments, normalised by two reference scores each:"
            f" {mean:.3f} ({low:.3f} to {high:.3f}).",
            "",
            f"![Performance profile](figures/{page.stem}-profile.png)",
            "",
        ]
    lines += ["## Machine and code", "", *_machines(groups), ""]
    page.write_text("\n".join(lines))


def read_scores(path: str) -> dict[str, Any]:
    """Reads a JSON object: experiment -> [low, high].

    Raises:
      BadInput: the file is not that.
    """
    try:
        found = json.loads(pathlib.Path(path).read_text())
        return {name: [float(low), float(high)] for name, (low, high) in found.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise errors.BadInput(
            f"--scores={path} cannot be read ({error}): give a JSON object with"
            ' "EXPERIMENT": [low, high].'
        ) from error
