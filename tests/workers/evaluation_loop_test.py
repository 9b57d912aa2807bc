"""The evaluator: at fixed steps, within its share, the best on other seeds."""

import pytest
import torch

from impala_mp.environments import factory
from impala_mp.evaluation import saved_run
from impala_mp.networks import agent
from impala_mp.storage import checkpoint, evaluations
from impala_mp.workers import evaluation_loop, evaluator, snapshots
from tests.support import builders


class _Run:
    """An evaluator on demand, and snapshots of a policy that can be told what to do."""

    def __init__(self, folder, **overrides):
        self.folder = folder
        config = builders.config(
            **{
                "evaluation.during_training": True,
                "evaluation.training_episodes": 12,
                "evaluation.interval_steps": 100,
                "evaluation.greedy": True,
                **overrides,
            }
        )
        self.shared = builders.shared(config, folder / "checkpoints")
        self.learned = agent.make(config, self.shared.environment)
        flat = evaluation_loop.flat_parameters.FlatParameters(self.learned.network)
        self.writer = snapshots.Writer(flat.flat, self.shared.snapshots, 100)
        environment = factory.make(config.environment, 4, training=False)
        policy = agent.make(config, self.shared.environment)
        row = self.shared.row(*self.shared.topology.of("evaluator"))
        self.row = row
        self.loop = evaluation_loop.EvaluationLoop(
            [self.shared], [policy], {"": environment}, row
        )

    def learn(self, agent_steps, bias):
        """Publishes a policy that always takes the action of the largest bias."""
        with torch.no_grad():
            for parameter in self.learned.network.parameters():
                parameter.zero_()
            self.learned.network.policy.bias.copy_(torch.tensor(bias))
        self.writer.look(snapshots.Moment(agent_steps // 10, agent_steps, 1.5))

    def evaluate(self, rounds=1):
        """Lets the loop evaluate, and then stop."""
        wanted = self.row.get("finished") + rounds
        stopping = type(self.shared.control).stopping
        goes_on = lambda: self.row.get("finished") < wanted  # noqa: E731
        self.loop._goes_on = goes_on
        real = self.loop._evaluate

        def evaluate(moment):
            self.loop._goes_on = lambda: True
            real(moment)
            self.loop._goes_on = goes_on

        self.loop._evaluate = evaluate
        self.loop.run()
        self.loop._evaluate = real
        assert stopping is type(self.shared.control).stopping
        return evaluations.read(str(self.folder))


_STAY, _LEFT = [0.0, 9.0, 0.0], [9.0, 0.0, 0.0]


def test_an_evaluation_is_a_line_and_a_record(tmp_path):
    run = _Run(tmp_path)
    run.learn(120, _STAY)
    lines = run.evaluate()
    assert [line["policy"] for line in lines][:2] == ["random", "greedy"]
    assert lines[0]["agent_steps"] == 0
    line = lines[1]
    assert (line["agent_steps"], line["updates"], line["time_secs"]) == (120, 12, 1.5)
    assert line["episodes"] == len(line["returns"][""]) == 12
    assert set(line["lengths"][""]) == {9}
    (record,) = run.shared.evaluation_record.read()
    assert record["evaluation/return_mean"] == line["mean"]
    assert record["evaluation/agent_steps"] == 120


def test_the_random_policy_plays_once(tmp_path):
    run = _Run(tmp_path)
    run.learn(120, _STAY)
    run.evaluate()
    again = _Run(tmp_path)  # the next incarnation
    again.learn(220, _STAY)
    lines = again.evaluate()
    assert [line["policy"] for line in lines].count("random") == 1


def test_the_best_is_reported_on_other_games(tmp_path):
    run = _Run(tmp_path)
    results = {}
    for steps, bias in ((120, _STAY), (230, _LEFT), (340, _STAY)):
        run.learn(steps, bias)
        results[steps] = run.evaluate()
    lines = results[340]
    progress = [x for x in lines if x["purpose"] == evaluations.PROGRESS][1:]
    best = [x for x in lines if x["purpose"] == evaluations.BEST]
    assert len(progress) == 3
    assert progress[0]["returns"] == progress[2]["returns"]  # the same games
    assert {tuple(x["seeds"]) for x in progress} != {tuple(x["seeds"]) for x in best}
    highest = max(x["mean"] for x in progress)
    first = next(x for x in progress if x["mean"] == highest)
    assert best[-1]["agent_steps"] == first["agent_steps"]
    state = checkpoint.load(str(tmp_path / "checkpoints" / "best"))
    assert state["learner"]["agent_steps"] == first["agent_steps"]
    assert state["selection"]["mean"] == highest
    kept = state["learner"]["parameters"]["policy.bias"].tolist()
    assert kept == (_STAY if first["agent_steps"] == 120 else _LEFT)


def test_the_best_can_be_loaded(tmp_path):
    run = _Run(tmp_path)
    run.learn(120, _LEFT)
    run.evaluate()
    saved = saved_run.SavedRun(str(tmp_path), config=run.shared.config, which="best")
    assert (saved.agent_steps, saved.updates) == (120, 12)
    loaded = saved.agent()
    assert loaded.network.policy.bias.tolist() == _LEFT


def test_a_stopped_run_leaves_no_half_evaluation(tmp_path):
    run = _Run(tmp_path)
    run.learn(120, _STAY)
    run.shared.control.stop()
    run.loop.run()
    assert evaluations.read(str(tmp_path)) == []
    assert run.shared.evaluation_record.read() == []


def test_an_environment_that_draws_nothing_costs_the_films_alone(tmp_path, capsys):
    run = _Run(tmp_path, **{"evaluation.films": True})  # it was made without pictures
    for steps in (120, 230):
        run.learn(steps, _STAY)
        lines = run.evaluate()
    assert {120, 230} <= {line["agent_steps"] for line in lines}
    assert run.row.get("finished") == 2
    assert capsys.readouterr().out.count("There are no more films: ") == 1
    assert not (tmp_path / "films").exists()


class _Row:
    def beat(self, state):
        pass


@pytest.mark.parametrize("share", [0.02, 0.5])
def test_it_takes_its_share_of_the_cores(monkeypatch, share):
    now, used = [0.0], [0.0]
    monkeypatch.setattr(evaluation_loop.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(evaluation_loop.time, "process_time", lambda: used[0])

    def sleep(seconds):
        now[0] += seconds

    monkeypatch.setattr(evaluation_loop.time, "sleep", sleep)
    allowance = evaluation_loop.Allowance(share, _Row())
    for _ in range(1000):
        now[0] += 0.01
        used[0] += 0.01
        allowance.pause(lambda: True)
        assert used[0] <= share * now[0] + 1e-6
    assert used[0] == pytest.approx(share * now[0], rel=0.05)


def test_seeds_of_choice_and_report_differ():
    assert evaluator.SELECTION != evaluator.REPORT
    assert 0 not in (evaluator.SELECTION, evaluator.REPORT)  # the final evaluation's
