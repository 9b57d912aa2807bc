"""The target network moves at the right updates, once, and nowhere else."""

import ast
import copy
import pathlib

import numpy as np
import pytest
import torch

from impala_mp.algorithms import base, target_network
from tests.support import builders, learners

_PACKAGE = pathlib.Path(target_network.__file__).parents[1]
_BUFFERED = {"network.torso": f"{__name__}:torso"}


class _Buffered(torch.nn.Linear):
    """Beside its weights it holds what nobody differentiates, of two kinds."""

    def __init__(self, size):
        super().__init__(size, 8)
        self.register_buffer("buffer_mean", torch.zeros(3))
        self.register_buffer("buffer_count", torch.zeros((), dtype=torch.int64))


def torso(observation, config):
    return _Buffered(observation.shape[0])


def _stir(made):
    """Stands for a network that counts what it sees."""
    for name, buffer in made.agent.network.named_buffers():
        if "buffer" in name:
            buffer.add_(1)


def _make(**overrides):
    made, policy, batch = learners.make(algorithm="impact", **overrides)
    return made, batch, base.live_from_config(made._config)


@pytest.mark.parametrize("period", [1, 3, 4])
@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("network", [{}, _BUFFERED], ids=["mlp", "buffers"])
def test_every_period_updates_it_is_a_copy_and_else_does_not_move(
    period, passes, network
):
    made, batch, live = _make(
        **network, **{"target.period": period, "learner.passes": passes}
    )
    target, online = made._algorithm.state["target"], made.parameters.flat
    moved, before = [], target.clone()
    assert torch.equal(target, online)
    for update in range(1, 14):
        _stir(made)
        made.update(batch, live)
        if not torch.equal(target, before):
            moved.append(update)
            assert torch.equal(target, online)
            before = target.clone()
    assert moved == [n for n in range(1, 14) if n % period == 0]


def test_it_is_made_in_one_place_and_moved_in_one_place():
    calls = {"TargetNetwork": [], "after_update": [], "_target.update": []}
    for path in sorted(_PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                for key, found in calls.items():
                    if name.endswith(key):
                        found.append(path.stem)
    assert calls == {
        "TargetNetwork": ["registry"],
        "after_update": ["learner"],
        "_target.update": ["dqn", "impact"],
    }


def test_an_update_moves_it_once(monkeypatch):
    counts = []
    update = target_network.TargetNetwork.update

    def counted(self, updates):
        counts.append(updates)
        update(self, updates)

    monkeypatch.setattr(target_network.TargetNetwork, "update", counted)
    made, batch, live = _make(**{"learner.passes": 3, "learner.micro_batches": 2})
    for _ in range(5):
        made.update(batch, live)
    assert counts == [1, 2, 3, 4, 5]


def test_polyak_is_an_average_of_what_is_learned_and_a_copy_of_the_rest():
    made, batch, live = _make(**_BUFFERED, **{"target.period": 2, "target.polyak": 0.9})
    layout, online = made.parameters.layout, made.parameters.flat
    expected = [view.double() for view in layout.views(online.clone())]
    for update in range(1, 7):
        _stir(made)
        made.update(batch, live)
        if update % 2 == 0:
            for entry, old, new in zip(
                layout.entries, expected, layout.views(online), strict=True
            ):
                learned = "buffer" not in entry.name
                old.copy_(0.9 * old + 0.1 * new.double() if learned else new)
    actual = layout.views(made._algorithm.state["target"])
    for entry, a, b in zip(layout.entries, actual, expected, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-6, msg=entry.name)


@pytest.mark.parametrize("polyak", [0.0, 0.5])
def test_a_skipped_step_does_not_poison_it(polyak):
    made, batch, live = _make(**{"target.period": 2, "target.polyak": polyak})
    made.update(batch, live)
    bad = batch.time_step._replace(reward=batch.time_step.reward.clone())
    bad.reward[2, 3] = np.nan
    made.update(batch._replace(time_step=bad), live)  # moves it
    views = made.parameters.layout.views(made._algorithm.state["target"])
    assert all(view.isfinite().all() for view in views)
    assert made.update(batch, live).isfinite().all()


def test_the_network_is_its_own_again_also_after_an_exception():
    made, batch, _ = _make()
    target = made._algorithm._target
    with torch.no_grad():
        made.parameters.trainable.add_(0.1)
    own = made.unroll(batch).baseline
    with target.in_place():
        lent = made.unroll(batch).baseline
        assert not lent.requires_grad
    with pytest.raises(KeyError), target.in_place():
        raise KeyError
    again = made.unroll(batch).baseline
    assert torch.equal(own, again)
    assert not torch.allclose(own, lent)
    assert again.requires_grad


def test_a_round_trip_takes_the_target_along():
    made, batch, live = _make(**{"target.period": 3})
    for _ in range(4):
        made.update(batch, live)
    other, _, _ = _make(**{"target.period": 3})
    other.load_state_dict(copy.deepcopy(made.state_dict()))
    for _ in range(3):
        made.update(batch, live)
        other.update(batch, live)
        a, b = made._algorithm.state["target"], other._algorithm.state["target"]
        assert torch.equal(a, b)
        assert torch.equal(made.parameters.flat, other.parameters.flat)


def test_actors_never_see_it(tmp_path):
    overrides = {"algorithm": "impact", "target.period": 100}
    parts = builders.parts(builders.config(**overrides), tmp_path)
    parts.training.publish()
    for _ in range(2):
        for one in parts.actors:
            one.fetch()
            one.unroll()
        parts.training.step()
    flat = parts.training._learner.parameters.flat
    parts.actors[0].fetch()
    assert np.array_equal(parts.actors[0].parties[0].parameters.buffer, flat.numpy())
