"""End of a training: final evaluation, best checkpoint, film and learning curve."""

import contextlib
import os
import shlex
import shutil
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

from PIL import Image

from impala_mp import errors
from impala_mp.config import derived, fields
from impala_mp.environments import bad_data, vector
from impala_mp.evaluation import evaluate, saved_run
from impala_mp.monitoring import curves, evidence
from impala_mp.networks import agent
from impala_mp.storage import best_checkpoint, evaluations, files, workdir
from impala_mp.workers import evaluator, film as film_lib, line_up

_FILM = "film.gif"
_FILM_SECS = 20.0  # at most, for playing and drawing one game
_RANDOM_SECS = 5.0  # at most, for games of the random policy


Agents = Sequence[agent.Agent]  # of each policy


def conclude(name: str, path: str, config: Any, agents: Agents) -> None:
    """Evaluates the finished run in `path`, and prints what came of it.

    Args:
      name: of the environment, for people.
      agents: those of the run, whose parameters are replaced.
    """
    run = saved_run.SavedRun(path, config=config)
    run.agents(agents)
    if run.stopped:
        print(f"\nThe run ended before total_agent_steps: {run.stopped}.")
    text, member = _final(run, agents)
    print(f"\nFinal evaluation: {text}", flush=True)
    folder = shlex.quote(path)
    best = _best(run, agents[0]) if len(agents) == 1 else ""
    lines = {
        "Run": path,
        "Best checkpoint": best,
        "Learning curve": _learning_curve(run, agents, name),
        "Best member": member,
        "Film": _film(*_alone(run, agents, member)),
        "TensorBoard": f"{command('tensorboard')} --logdir={folder}",
        "Evaluate again": (
            f"{command('impala-eval')} --workdir={folder} --episodes=100"
            + (f" --policy={member}" if member else "")
        ),
    }
    _show_in_tensorboard(run)
    for label, text in lines.items():
        if text:
            print(f"{label + ':':<17}{text}", flush=True)


def command(name: str) -> str:
    """Returns `name`, or its path beside Python if it is not on PATH; shell-quoted."""
    beside = os.path.join(os.path.dirname(sys.executable), name)
    hidden = shutil.which(name) is None and os.path.exists(beside)
    return shlex.quote(beside) if hidden else name


# The final evaluation.


def _final(run: saved_run.SavedRun, agents: Agents) -> tuple[str, str]:
    """Plays greedy and sampled games, and keeps both.

    Action values give a greedy policy alone.

    Returns:
      The result in words, and the best member of a population or "".
    """
    lines: dict[str, Any] = {}
    by_value = all(map(derived.learns_action_values, run.configs()))
    kinds = (True,) if by_value else (True, False)
    try:
        for greedy in kinds:
            played = evaluate.play(run, agents, run.config.evaluation.episodes, greedy)
            line = evaluate.as_line(run, played, evaluations.FINAL, greedy, run.seed())
            lines[line["policy"]] = line
    except evaluator.NoGameEnded as error:
        return f"none; {error}", ""
    greedy_first = bool(run.config.evaluation.greedy)
    order = sorted(lines, reverse=not greedy_first)  # greedy, sampled
    cost = evidence.field("loss.entropy_cost", fields.flatten(run.config))
    sentence = _difference(lines, cost)
    with _reported("The final evaluation"):
        for kind in order:
            evaluations.append(run.path, lines[kind])
        final: dict[str, Any] = {**lines, "sentence": sentence}
        if run.num_members:
            final["best_member"] = evaluate.best_member(lines[order[0]])
        evaluations.write_final(run.path, final)
    chosen, *others = (lines[kind] for kind in order)
    rest = "".join(f"; {each['policy']} {_number(each['mean'])}" for each in others)
    protocol = evaluator.protocol(run.evaluation_environment, greedy_first)
    text = (
        f"mean return {_number(chosen['mean'])}, 95 % interval"
        f" {_number(chosen['low'])} to {_number(chosen['high'])}, standard deviation"
        f" {_number(chosen['std'])}, over {chosen['episodes']} episodes ({protocol})"
        f"{rest}.{sentence and f' {sentence}'}"
    )
    if not run.num_members:
        return text, ""
    best = evaluate.best_member(chosen)
    mean = statistics.fmean(chosen["returns"][best])
    return f"{text} The best member is {best}, with {_number(mean)}.", best


def _alone(
    run: saved_run.SavedRun, agents: Agents, member: str
) -> tuple[saved_run.SavedRun, Agents]:
    """Returns the run and the agent of one member, or all without one."""
    if not member:
        return run, agents
    alone = saved_run.SavedRun(run.path, config=run.config, policy=member)
    return alone, [agents[run.names.index(member)]]


def _difference(lines: dict[str, Any], cost: str) -> str:
    """Returns a sentence if greedy and sampled games differ beyond chance; or "".

    `cost` is the field that sets the entropy's cost, in words.
    """
    if len(lines) < 2:
        return ""
    greedy, sampled = lines[evaluations.GREEDY], lines[evaluations.SAMPLED]
    if not evaluations.are_apart(greedy, sampled):
        return ""
    if greedy["mean"] > sampled["mean"]:
        return (
            "Greedy actions are better than sampled ones: act greedily, or let the"
            f" entropy fall with a lower {cost}."
        )
    return (
        "Sampled actions are better than greedy ones: the policy needs its"
        " randomness. Act with samples, or train for longer."
    )


def _number(value: float) -> str:
    """Returns three decimals, or three digits of a number that they would hide."""
    return f"{value:.3g}" if 0.0 < abs(value) < 0.001 else f"{value:.3f}"


@contextlib.contextmanager
def _reported(what: str) -> Any:
    """Reports what a full disk does not take."""
    try:
        yield
    except OSError as error:
        print(f"{what} could not be written: {error}.", file=sys.stderr)


# The best checkpoint.


def _best(run: saved_run.SavedRun, policy: agent.Agent) -> str:
    """Lets the newest checkpoint compete for the best; returns the best in words.

    All play the games of the same seeds, and are reported on those of others.
    """
    best = best_checkpoint.BestCheckpoint(workdir.Workdir(run.path).checkpoints)
    settings = run.config.evaluation
    seed = evaluator.seed_of(run.config, evaluator.SELECTION)
    try:
        played = evaluate.play(
            run, [policy], settings.training_episodes, settings.greedy, seed=seed
        )
    except evaluator.NoGameEnded:
        return ""
    line = evaluate.as_line(run, played, evaluations.PROGRESS, settings.greedy, seed)
    with _reported("The best checkpoint"):
        evaluations.append(run.path, line)
        if best.is_better(line["mean"]) or best.mean == line["mean"]:
            parameters = policy.network.state_dict()
            best.save(parameters, run.updates, run.agent_steps, line["mean"])
    if best.updates == run.updates:
        return "the newest"
    reported = [
        each
        for each in evaluations.read(run.path)
        if each["purpose"] == evaluations.BEST and each["updates"] == best.updates
    ]
    if not reported:
        return f"update {best.updates:,}"
    return (
        f"mean return {_number(reported[-1]['mean'])} at"
        f" {reported[-1]['agent_steps']:,} agent steps; use --checkpoint=best"
    )


# Pictures.


def _learning_curve(run: saved_run.SavedRun, agents: Agents, name: str) -> str:
    """Draws the learning curve; returns its file, or why there is none."""
    _add_random_policy(run, agents)
    image = os.path.join(run.path, "learning_curve.png")
    try:
        curves.plot({name: [run.path]}, image, f"{os.path.splitext(image)[0]}.svg")
    except errors.BadInput:
        return "none; no full game has ended in training."
    except OSError as error:  # a full disk
        return f"none ({error})."
    return image


def _add_random_policy(run: saved_run.SavedRun, agents: Agents) -> None:
    """Plays games of the random policy, unless the evaluator has done so."""
    if any(x["policy"] == evaluations.RANDOM for x in evaluations.read(run.path)):
        return
    end = time.monotonic() + _RANDOM_SECS
    settings, by_task = run.config.evaluation, {}
    seed = evaluator.seed_of(run.config, evaluator.SELECTION)
    for task, suffix in enumerate(run.tasks):
        count = min(settings.training_episodes, settings.environments)
        with contextlib.closing(run.environment(count, task)) as environment:
            at_random = [
                evaluator.RandomPolicy(each, spec.action)
                for each, spec in zip(agents, environment.specs, strict=True)
            ]
            played = evaluator.evaluate(
                line_up.of(at_random, environment),
                environment,
                settings.training_episodes,
                False,
                seed,
                lambda: time.monotonic() < end,
                settings.max_steps,
                lambda sentence: None,
            )
            by_task |= played.by_label(suffix, environment.labels, environment.policies)
    # Games that ended in time alone would be the short ones.
    if time.monotonic() < end and all(each.returns for each in by_task.values()):
        line = evaluate.as_line(run, by_task, evaluations.PROGRESS, False, seed)
        line |= {"policy": evaluations.RANDOM}
        line |= {"agent_steps": 0, "updates": 0, "time_secs": 0.0}
        with _reported("The evaluation of the random policy"):
            evaluations.append(run.path, line)


def _show_in_tensorboard(run: saved_run.SavedRun) -> None:
    """Adds the final evaluation, and the film if there is one."""
    from impala_mp.storage import event_file  # its import takes long

    means = {
        f"evaluation/final_{each['policy']}": each["mean"]
        for each in evaluations.read(run.path)
        if each["purpose"] == evaluations.FINAL
        and each["agent_steps"] == run.agent_steps
    }
    try:
        events = event_file.EventFile(run.path)
        for tag, mean in means.items():
            events.add(run.agent_steps, {tag: mean}, {})
        film = os.path.join(run.path, _FILM)
        if os.path.exists(film):
            with Image.open(film) as image:
                width, height = image.size
            events.add_film(
                "film", run.agent_steps, files.read_bytes(film), (height, width)
            )
        events.close()
    except (OSError, files.Damaged) as error:
        print(f"TensorBoard lacks the final evaluation: {error}.", file=sys.stderr)


def _film(run: saved_run.SavedRun, agents: Agents) -> str:
    """Films a game of the final policy; returns the file, or "" without pictures."""
    if not run.config.evaluation.film:
        return ""
    file = os.path.join(run.path, _FILM)
    try:
        environment = run.environment(1)
        draws = environment.draws
        environment.close()
        if not draws:
            return ""
        with contextlib.closing(run.environment(1, 0, "rgb_array")) as environment:
            return _filmed(run, agents, environment, file)
    except (errors.BadInput, bad_data.BadData, OSError) as error:
        return f"none ({error})"


def _filmed(
    run: saved_run.SavedRun,
    agents: Agents,
    environment: vector.VectorEnvironment,
    file: str,
) -> str:
    film = film_lib.Film(environment, _FILM_SECS, small=True)
    settings = run.config.evaluation
    evaluator.evaluate(
        line_up.of(agents, environment),
        environment,
        1,
        settings.greedy,
        run.seed(),
        film,
        settings.max_steps,
        lambda sentence: None,
    )
    film()  # the end of the game
    film.save(file)
    return file
