"""Several tasks in one run: padding, masks, numbers of each, PopArt for each."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from impala_mp import errors, nest, specs
from impala_mp.config import validation
from impala_mp.environments import checker, factory, tasks
from impala_mp.evaluation import evaluate
from impala_mp.networks import agent, popart
from impala_mp.runtime import program
from impala_mp.storage import metrics
from impala_mp.workers import ended_games, episode_statistics
from tests.support import builders

pytestmark = pytest.mark.usefixtures("_without_pictures")


class Sized(gymnasium.Env):
    """Three steps; observations and actions of the given sizes, rewards of a scale."""

    size, actions, scale = (3, 4, 2), 3, 1.0

    def __init__(self):
        self.observation_space = spaces.Box(1, 9, self.size, np.uint8)
        self.action_space = spaces.Discrete(self.actions)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._time = 0
        return np.ones(self.size, np.uint8), {}

    def step(self, action):
        assert action in self.action_space
        self._time += 1
        observation = np.full(self.size, 1 + self._time, np.uint8)
        return observation, self.scale, self._time == 3, False, {}


class Large(Sized):
    size, actions, scale = (5, 4, 6), 4, 100.0


class Same(Sized):
    scale = 10.0


class Flat(Sized):
    size = (3,)


for name, kind in (("A", Sized), ("B", Large), ("C", Same), ("Flat", Flat)):
    gymnasium.register(f"Task{name}-v0", kind)


def _config(*names, **overrides):
    ids = ", ".join(f"{__name__}:Task{name}-v0" for name in names)
    return builders.config(**{"environment.id": ids, **overrides})


def _make(config, task):
    return factory.make(config.environment, 2, task=task)


@pytest.mark.parametrize(
    ("shape", "size", "joint"),
    [((5, 5, 4), 4, 4), ((3, 9, 4), 4, 4), ((5, 5, 4), 2, 1), ((5, 5, 8), 4, 1)],
)
def test_stacks_of_one_layout_stay_stacks_in_the_joint_spec(shape, size, joint):
    parts = [
        specs.EnvironmentSpec(
            specs.array_spec(each, np.uint8, (0.0,), (255.0,), stack_size),
            specs.DiscreteSpec(3),
            4,
        )
        for each, stack_size in (((5, 5, 4), 4), (shape, size))
    ]
    made = tasks.joint_spec(("A", "B"), parts).observation[tasks.OBSERVATION]
    assert made.stack_size == joint
    assert (made.low, made.high) == ((0.0,), (255.0,))


def test_observations_and_actions_are_padded_to_the_largest():
    config = _config("A", "B")
    spec = factory.probe(config.environment)
    assert spec.num_tasks == 2
    assert spec.action.num_actions == 4
    assert spec.action_mask == tasks.ALLOWED
    assert spec.observation[tasks.OBSERVATION].shape == (5, 4, 6)
    for task, size in ((0, (3, 4, 2)), (1, (5, 4, 6)), (2, (3, 4, 2))):
        made = _make(config, task)
        assert made.spec == spec
        step = made.reset([0, 1])
        step, _ = made.step(np.zeros(2, np.int64))
        padded = step.observation[tasks.OBSERVATION]
        assert (padded[:, : size[0], : size[1], : size[2]] == 2).all()
        assert padded.sum() == 2 * 2 * np.prod(size)
        assert step.observation[tasks.TASK].tolist() == [task % 2] * 2
        allowed = [True] * 3 + [size == (5, 4, 6)]
        assert step.observation[tasks.ALLOWED].tolist() == [allowed] * 2


def test_tasks_of_the_same_spaces_need_no_mask():
    spec = factory.probe(_config("A", "C").environment)
    assert set(spec.observation) == {tasks.OBSERVATION, tasks.TASK}
    assert spec.action_mask == ""


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("A", "Flat"), "which differ in observations"),
        (("A", "A"), "different ids"),
    ],
)
def test_spaces_that_cannot_be_combined_are_refused(names, words):
    with pytest.raises(errors.BadInput, match=words):
        factory.probe(_config(*names).environment)


def test_other_actions_cannot_be_put_together():
    config = builders.config(**{"environment.id": "Pendulum-v1, CartPole-v1"})
    with pytest.raises(errors.BadInput, match="which differ in actions"):
        factory.probe(config.environment)


def test_each_task_needs_an_actor():
    with pytest.raises(errors.BadInput, match="at least 3, one a task"):
        validation.validate(_config("A", "B", "C"), 2)


def test_numbers_of_each_task():
    made = episode_statistics.Episodes(("/A", "/B"))
    names = ["score"]
    games = ended_games.Games(
        returns=np.array([1.0, 3.0, 40.0, 20.0, 5.0]),
        lengths=np.ones(5, np.int32),
        tasks=np.array([0, 0, 1, 1, 0]),
        numbers=np.array([[2.0], [np.nan], [7.0], [9.0], [4.0]]),
    )
    made.add(games, names)
    found = episode_statistics.with_names(made.metrics(names), names)
    assert found["episode/count"] == 5
    assert (found["episode/count/A"], found["episode/count/B"]) == (3, 2)
    assert found["episode/return_mean/A"] == 3.0
    assert found["episode/return_mean/B"] == 30.0
    other = episode_statistics.Episodes(("/A", "/B"))
    other.load_state_dict(made.state_dict())
    assert episode_statistics.with_names(other.metrics(names), names) == found
    assert found["env/score"] == 5.5
    assert (found["env/score/min"], found["env/score/max"]) == (2.0, 9.0)
    assert (found["env/score/A"], found["env/score/B"]) == (3.0, 8.0)


def test_popart_of_each_task_is_as_of_one_alone():
    """Targets of two tasks in one batch, against a head for each."""
    torch.manual_seed(0)
    both = popart.PopArtHead(7, 2)
    alone = [popart.PopArtHead(7) for _ in range(2)]
    for row, head in enumerate(alone):
        head.load_state_dict(
            {key: value[row : row + 1] for key, value in both.state_dict().items()}
        )
    inputs = torch.randn(5, 6, 7)
    task = torch.tensor([0, 1, 1, 0, 1, 0]).expand(5, 6)
    learnable = (torch.rand(5, 6) < 0.8).float()
    for turn in range(20):
        targets = torch.randn(5, 6) * (1.0 + 99.0 * task) + 3.0 * turn
        moments = both.moments(targets, learnable, task)
        both.adapt(moments, 0.1, torch.ones(()), torch.full_like(both.mean, 1e6))
        for row, head in enumerate(alone):
            mine = learnable * (task == row)
            batches = torch.full_like(head.mean, 1e6)
            head.adapt(head.moments(targets, mine), 0.1, torch.ones(()), batches)
            torch.testing.assert_close(both.mean[row], head.mean[0])
            torch.testing.assert_close(
                both.scale_of(task)[task == row][0], head.scale[0]
            )
            torch.testing.assert_close(
                both(inputs, task)[task == row], head(inputs)[task == row]
            )


@pytest.mark.integration
@pytest.mark.parametrize(
    ("names", "mode"),
    [
        ("AB", "lockstep"),
        ("AC", "processes"),
        pytest.param("AB", "processes", marks=pytest.mark.slow),
        pytest.param("AC", "lockstep", marks=pytest.mark.slow),
    ],
)
def test_a_whole_training(tmp_path, names, mode):
    config = _config(
        *names,
        **{
            "runtime.mode": mode,
            "loss.popart": True,
            "network.joint_size": 16,
            "total_agent_steps": (40 if mode == "lockstep" else 120) * 5 * 6,
            "evaluation.episodes": 3,
            "evaluation.environments": 2,
            "health.drift_interval": 1,
            "logging.interval_secs": 0.05,
            "loss.popart_beta": 0.1,
        },
    )
    folder = tmp_path / "run"
    if mode == "processes":
        builders.train_in_processes(config, folder)
    else:
        program.train(config, str(folder))
    record = metrics.read(str(folder))[-1]
    suffixes = [f"/Task{name}-v0" for name in names]
    scales = {"A": 3.0, "B": 300.0, "C": 30.0}
    for name, suffix in zip(names, suffixes, strict=True):
        assert record[f"episode/return_mean{suffix}"] == scales[name]
    assert (
        record[f"popart/scale{suffixes[1]}"] > 3 * record[f"popart/scale{suffixes[0]}"]
    )
    assert record["health/drift_alarms"] == 0
    result = evaluate.evaluate(str(folder), 3)
    assert result["episodes"] == 6
    for name, suffix in zip(names, suffixes, strict=True):
        assert result[f"mean{suffix}"] == scales[name]


def test_the_network_sees_the_task():
    config = _config("A", "C")
    torch.manual_seed(0)
    policy = agent.make(config, factory.probe(config.environment))
    steps = [_make(config, task).reset([0, 1]) for task in (0, 1)]
    values = [
        policy.step(
            step._replace(
                step_type=torch.from_numpy(step.step_type),
                reward=torch.from_numpy(step.reward),
                discount=torch.from_numpy(step.discount),
                observation={
                    key: torch.from_numpy(leaf.copy())
                    for key, leaf in step.observation.items()
                },
            ),
            (),
        )[0].baseline
        for step in steps
    ]
    assert not torch.equal(*values)


class Picky(Sized):
    """Allows one action, which its observation names; others are an error."""

    actions = 3

    def __init__(self):
        super().__init__()
        self.observation_space = spaces.Dict(
            {
                "image": spaces.Box(1, 9, self.size, np.uint8),
                "may": spaces.MultiBinary(self.actions),
            }
        )

    def _dict(self, image):
        self._may = np.zeros(self.actions, np.int8)
        self._may[self.np_random.integers(self.actions)] = 1
        return {"image": image, "may": self._may}

    def reset(self, *, seed=None, options=None):
        image, info = super().reset(seed=seed)
        return self._dict(image), info

    def step(self, action):
        if not self._may[action]:
            raise ValueError(f"illegal move {action}")
        image, *rest = super().step(action)
        return self._dict(image), *rest


class Pickier(Picky):
    actions = 4


def _picky():
    names = f"{__name__}:Picky, {__name__}:Pickier"
    key = f"{tasks.OBSERVATION}/may"
    return builders.config(**{"environment.id": names, "agent.action_mask_key": key})


def test_a_custom_mask_also_forbids_actions_a_task_lacks():
    config = _picky()
    made = agent.make(config, factory.probe(config.environment))
    for task, size in enumerate((3, 4)):
        environment = _make(config, task)
        time_step = environment.reset([0, 1])
        for _ in range(4):
            tensors = nest.tensors(time_step)
            output, _ = made.step(tensors, made.initial_state(2))
            may = time_step.observation[tasks.OBSERVATION]["may"] != 0
            assert may.shape == (2, 4)
            assert may.sum() == 2
            assert not may[:, size:].any()
            assert ((output.policy_logits > -1e8).numpy() == may).all()
            time_step, _ = environment.step(output.action.numpy())
        environment.close()


def test_check_plays_by_the_mask():
    found = {f.subject: f for f in checker.check(_picky())}
    assert {f.verdict for f in found.values()} <= {checker.OK, checker.WARNING}
    assert found["episodes/Pickier"].verdict == checker.OK


class Told(Picky):
    """With words that the network cannot read, and that `Picky` does not have."""

    def __init__(self):
        super().__init__()
        words = {"words": spaces.Text(5)}
        self.observation_space = spaces.Dict({**self.observation_space, **words})

    def _dict(self, image):
        return {**super()._dict(image), "words": "no"}


def test_ignored_observations_must_exist_in_one_task_only():
    config = builders.config(
        **{
            "environment.id": f"{__name__}:Told, {__name__}:Picky",
            "environment.ignored": ("words",),
            "agent.action_mask_key": f"{tasks.OBSERVATION}/may",
        }
    )
    spec = factory.probe(config.environment)
    assert set(spec.observation[tasks.OBSERVATION]) == {"image", "may"}
    verdicts = {finding.verdict for finding in checker.check(config)}
    assert checker.FAIL not in verdicts
    config.environment.ignored = ("words", "word")
    with pytest.raises(errors.BadInput, match="ignored has 'word', which is no entry"):
        factory.probe(config.environment)
