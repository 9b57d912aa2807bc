"""A policy as a function: single observations, batches, memory, refusals."""

import gymnasium
import numpy as np
import pytest
import torch

import impala_mp as im
from impala_mp import types
from impala_mp.evaluation import saved_run
from impala_mp.runtime import program
from tests.support import builders


def _trained(path, name="Catch", **overrides):
    program.train(builders.short_training(name, **overrides), str(path))
    return im.load(path)


def _boards(count, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.random((count, 10, 5)) < 0.1).astype(np.float32)


def test_a_batch_equals_single_calls_and_the_agent(tmp_path):
    run = _trained(tmp_path)
    boards = _boards(6)
    actions, _ = run.policy(boards)
    singles = [run.policy(board)[0] for board in boards]
    assert actions.tolist() == singles
    agent = saved_run.SavedRun(str(tmp_path)).agent()
    rows = types.TimeStep(
        torch.full((6,), types.StepType.FIRST, dtype=torch.uint8),
        torch.zeros(6),
        torch.ones(6),
        torch.from_numpy(boards),
    )
    with torch.no_grad():
        own, _ = agent.step(rows, agent.initial_state(6), greedy=True)
    assert actions.tolist() == own.action.tolist()
    assert len({*singles}) > 1
    assert actions.shape == (6,)
    assert np.asarray(singles[0]).shape == ()
    space = gymnasium.spaces.Discrete(3)
    assert space.contains(singles[0])


def test_greedy_is_repeatable_and_sampled_is_not(tmp_path):
    run = _trained(tmp_path)
    boards = _boards(64)
    greedy = [run.policy(boards)[0].tolist() for _ in range(2)]
    assert greedy[0] == greedy[1]
    sampled = [run.policy(boards, greedy=False)[0].tolist() for _ in range(2)]
    assert sampled[0] != sampled[1]


def test_memory_is_in_the_state_and_starts_anew_without_it(tmp_path):
    memory = {"network.core": "lstm", "network.last_action": True}
    run = _trained(tmp_path, **memory)
    boards = _boards(5)
    _, first = run.policy(boards)
    _, later = run.policy(boards, first)
    assert not all(torch.equal(a, b) for a, b in zip(first, later, strict=True))
    starts = np.array([True, False, True, False, False])
    _, mixed = run.policy(boards, first, first=starts)
    for fresh, old, each in zip(first, later, mixed, strict=True):
        rows = torch.from_numpy(starts)
        torch.testing.assert_close(each[rows], fresh[rows])
        torch.testing.assert_close(each[~rows], old[~rows])


def test_what_does_not_fit_is_a_sentence(tmp_path):
    run = _trained(tmp_path, **{"network.core": "lstm", "network.last_reward": True})
    (board,) = _boards(1)
    _, state = run.policy(board)
    for call, sentence in (
        (lambda: run.policy(board[:4]), "shape"),
        (lambda: run.policy({"a": board}), "observation"),
        (lambda: run.policy(_boards(2), state, reward=[0, 0]), "state has arrays"),
        (lambda: run.policy(board, state), "reward is not given"),
        (lambda: run.policy(board, state, reward=[1, 2]), "reward is"),
    ):
        with pytest.raises(im.BadInput, match=sentence):
            call()
    assert run.policy(board, state, reward=1.0)


@pytest.mark.parametrize("episodes", [0, -1, 1.5, "3"])
def test_a_number_of_episodes_that_cannot_be_played(tmp_path, episodes):
    run = _trained(tmp_path)
    with pytest.raises(im.BadInput, match="episodes .* must be a whole number"):
        run.evaluate(episodes=episodes)


def test_pictures_go_where_they_can(tmp_path):
    run = _trained(tmp_path / "run")
    picture = run.plot(tmp_path / "a.png")
    assert b"PNG" in (tmp_path / "a.png").read_bytes()[:8]
    assert "image/png" in picture._repr_mimebundle_()["text/html"]
    drawing = run.plot(tmp_path / "a.svg", x="time_secs")
    assert "</svg>" in (tmp_path / "a.svg").read_text()
    assert "image/svg+xml" in drawing._repr_mimebundle_()["text/html"]
    for path in ("a.jpg", tmp_path, tmp_path / "no" / "a.png"):
        with pytest.raises(im.BadInput, match="path"):
            run.plot(path)


def test_the_public_names_are_there():
    assert set(im.__all__) <= set(dir(im))
    for name in im.__all__:
        assert getattr(im, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = im.trian
