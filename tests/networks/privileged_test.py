"""What only values see: neither policy nor export depends on it, and values learn."""

import gymnasium
import numpy as np
import pytest
import torch

import impala_mp
from impala_mp import errors, nest
from impala_mp.environments import factory
from impala_mp.evaluation import export
from impala_mp.networks import agent, description
from tests.support import builders

_SPACE = gymnasium.spaces.Dict(
    {
        "seen": gymnasium.spaces.Box(-1.0, 1.0, (3,)),
        "cue": gymnasium.spaces.Box(-1.0, 1.0, (1,)),
        "deep": gymnasium.spaces.Dict({"x": gymnasium.spaces.Discrete(3)}),
    }
)


class Hidden(gymnasium.Env):
    """Two steps an episode; the reward is the cue, which the policy cannot see."""

    observation_space = _SPACE
    action_space = gymnasium.spaces.Discrete(2)

    def _observe(self):
        return {
            "seen": np.zeros(3, np.float32),
            "cue": np.array([self._cue], np.float32),
            "deep": {"x": 1},
        }

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._cue, self._steps = self.np_random.choice([-1.0, 1.0]), 0
        return self._observe(), {}

    def step(self, action):
        self._steps += 1
        return self._observe(), self._cue, self._steps == 2, False, {}


_ID = f"{__name__}:Hidden"


def _config(**fields):
    return builders.config(
        **{"environment.id": _ID, "environment.privileged": "cue", **fields}
    )


def _made(**fields):
    config = _config(**fields)
    environment = factory.probe(config.environment)
    torch.manual_seed(0)
    return config, environment, agent.make(config, environment)


@pytest.mark.parametrize("critic", ["shared", "separate"])
@pytest.mark.parametrize("path", ["cue", "deep/x"])
def test_values_depend_on_it_and_the_policy_does_not(critic, path):
    fields = {"environment.privileged": path, "network.critic": critic}
    config, environment, policy = _made(**fields)
    assert environment.privileged == path
    made = factory.make(config.environment, 4)
    time_step = nest.tensors(made.reset([0, 1, 2, 3]))
    rows = nest.map_structure(lambda leaf: leaf.unsqueeze(0), time_step)
    changed = nest.map_structure(torch.clone, rows)
    leaf = nest.at(changed.observation, path)
    leaf.copy_(leaf - 1 if path == "cue" else (leaf + 1) % 3)
    one, other = (
        policy.unroll(each, torch.zeros(0, 4, dtype=torch.int64), ())
        for each in (rows, changed)
    )
    assert torch.equal(one.policy_logits, other.policy_logits)
    assert (one.baseline != other.baseline).all()
    made.close()


def test_a_policy_and_an_export_do_without_it():
    config, environment, policy = _made()
    inputs = export.GreedyPolicy(policy, environment).inputs
    assert list(inputs) == ["observation/deep/x", "observation/seen"]
    assert "baseline" not in export.GreedyPolicy(policy, environment).carried
    lines = description.describe(config, environment)
    (line,) = [each for each in lines if each.subject == "observations cue"]
    assert line.text.endswith("for values alone.")


@pytest.mark.parametrize("path", ["", "cue"])
def test_values_learn_what_the_policy_cannot_see(tmp_path, path):
    """The return is 2 or -2 by the cue: without it values explain nothing."""
    fields = {
        "environment.ignored": () if path else ("cue",),
        "environment.privileged": path,
        "runtime.mode": "lockstep",
        "actors.count": 1,
        "learner.threads": 1,
        "evaluation.film": False,
    }
    run = impala_mp.train(_ID, total_agent_steps=8000, workdir=tmp_path, **fields)
    explained = run.metrics()[-1]["value/explained_variance"]
    assert explained > 0.8 if path else explained < 0.1
    action, _ = run.policy({"seen": np.zeros(3, np.float32), "deep": {"x": 1}})
    assert action in (0, 1)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"environment.privileged": "deep"}, r"'deep'\) is no array.*'deep/x'"),
        ({"environment.privileged": "gone"}, r"The arrays are \['cue', 'deep/x', 'se"),
        ({"environment.id": "Catch"}, r"\('cue'\) is no array in a Dict"),
        (
            {"environment.ignored": ("deep", "seen")},
            "no array in a Dict of observations beside others",
        ),
        (
            {"environment.id": f"{_ID},Catch"},
            "environment.privileged needs a single player",
        ),
        (
            {"environment.id": "mpe2.simple_spread_v3:parallel_env"},
            r"needs a single player and Dict observations.*privileged=",
        ),
        ({"environment.id": "ALE/Pong-v5"}, "privileged needs a single player"),
    ],
    ids=str,
)
def test_what_has_none_is_refused(fields, sentence):
    with pytest.raises(errors.BadInput, match=sentence):
        factory.probe(_config(**fields).environment)


def test_learners_of_action_values_have_none():
    with pytest.raises(errors.BadInput, match=r"privileged is for values.*impact"):
        _made(algorithm="dqn")
