"""Rules on learning: each finds its fault, and nothing in a healthy run."""

import pytest

from impala_mp.monitoring import findings
from tests.support import records


def _names(made, settings=records.SETTINGS, evaluations=()):
    return [each.name for each in findings.find(made, settings, evaluations)]


def _find(name, made, settings=records.SETTINGS):
    found = [each for each in findings.find(made, settings) if each.name == name]
    assert len(found) == 1, findings.find(made, settings)
    return found[0]


def _flat(value, spread=0.0):
    """Returns of games that do not change."""
    return {
        "episode__return_mean": value,
        "episode__return_min": value - spread,
        "episode__return_max": value + spread,
    }


def _fallen(t):
    return 142.0 * min(1.0, 2.0 * t) if t < 0.6 else -46.0


_FALL = {
    "episode__return_mean": _fallen,
    "episode__return_max": lambda t: _fallen(t) + 20.0,
    "episode__return_min": lambda t: _fallen(t) - 20.0,
}


@pytest.mark.parametrize("count", [20, 200, 5000])
def test_a_healthy_run_has_no_finding(count):
    assert _names(records.make(count)) == []


@pytest.mark.parametrize("until", [0.01, 0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_part_of_a_healthy_run_has_no_finding(until):
    assert _names(records.make(until=until)) == []


def test_records_without_any_of_the_keys_have_no_finding():
    assert _names([]) == []
    assert _names([{"agent_steps": 5}]) == []
    assert _names([{"agent_steps": k} for k in range(100)]) == []


def test_a_run_without_its_config_is_judged_too():
    assert _names(records.make(), {}) == []
    assert _names(records.make(**_FALL), {}) == ["return collapsed"]


def test_a_return_that_collapsed():
    found = _find("return collapsed", records.make(**_FALL))
    assert found.severity == "error"
    assert found.sentence == "The return fell from 142 to -46 at 600,000 steps."
    assert found.cure == (
        "Lower config.optimizer.learning_rate (0.001), or keep the best checkpoint."
    )


@pytest.mark.parametrize(
    ("key", "before", "after", "sentence", "cure"),
    [
        (
            "loss__gradient_norm",
            0.4,
            1.3,
            "The gradient norm rose from 0.4 to 1.3 then.",
            "Lower config.optimizer.clip_norm (0.5), or",
        ),
        ("vtrace__kl", 0.01, 0.1, "The KL rose from 0.01 to 0.1", "learner.passes (8)"),
        ("lag__mean", 2.0, 9.0, "The policy lag rose from 2 to 9", "Set a limit by"),
        (
            "policy__entropy",
            1.2,
            0.3,
            "The entropy fell from 1.2 to 0.3 then.",
            "Lower config.optimizer.learning_rate (0.001).",
        ),
    ],
)
def test_the_companion_of_a_collapse_is_named(key, before, after, sentence, cure):
    moved = {key: lambda t: before if t < 0.58 else after}
    found = _find("return collapsed", records.make(**_FALL, **moved))
    assert sentence in found.sentence
    assert cure in found.cure


def test_a_return_that_recovered_has_not_collapsed():
    def dip(t):
        return 10.0 if 0.5 < t < 0.6 else 100.0 * min(1.0, 2.0 * t)

    made = records.make(episode__return_mean=dip, episode__return_max=120.0)
    assert "return collapsed" not in _names(made)


def test_noise_is_no_collapse():
    """The mean of games from 0 to 100 moves by a few, and never rose."""
    noise = {**_flat(0.0, 50.0), "episode__return_mean": lambda t: 5.0 * (t < 0.3)}
    assert "return collapsed" not in _names(records.make(**noise))
    solved = {**_flat(499.0, 1.0), "episode__return_mean": lambda t: 500.0 - (t > 0.9)}
    assert "return collapsed" not in _names(records.make(**solved))


def test_a_deterministic_policy_with_a_poor_return():
    entropy = {"policy__entropy": lambda t: 1.4 if t < 0.1 else 0.01}
    found = _find("deterministic policy", records.make(**_flat(3.0, 40.0), **entropy))
    assert "from 1.4 to 0.01 nats" in found.sentence
    assert "config.loss.entropy_cost (0.01)" in found.cure
    assert found.severity == "warning"
    assert "deterministic policy" not in _names(records.make(**entropy))
    assert _find("deterministic policy", records.make(**entropy, **_slow)).severity == (
        "hint"
    ), "it still rises"


def test_a_policy_of_normals_may_have_any_entropy():
    """The entropy of a density is negative when it is narrow."""
    entropy = {"policy__entropy": lambda t: 1.4 - 1.4 * t, "policy__actions": None}
    made = records.make(**_flat(3.0, 40.0), **entropy)
    assert "deterministic policy" not in _names(made)


def test_no_learning():
    random = {"policy__entropy": lambda t: 1.38 - 0.01 * t}
    found = _find("no learning", records.make(**_flat(3.0, 40.0), **random))
    assert "The return is 3 after 100 % of the run, and was 3 at first." in (
        found.sentence
    )
    names = _names(records.make(until=0.3, **_flat(3.0, 40.0), **random))
    assert "no learning" not in names, "it may begin later"
    assert "no learning" not in _names(records.make(policy__entropy=1.38))


def test_a_random_policy_may_be_the_best():
    easy = {"policy__entropy": 1.38, "episode__return_mean": 495.0}
    easy |= {"episode__return_min": 400.0, "episode__return_max": 500.0}
    assert _names(records.make(**easy)) == []


def test_a_resumed_run_may_be_at_its_top():
    random = {"policy__entropy": 0.7, **_flat(480.0, 20.0)}
    late = [r for r in records.make(**random) if r["agent_steps"] > 500_000]
    assert _names(late) == []


def test_no_reward_at_all():
    found = _find("no reward", records.make(**_flat(0.0)))
    assert "All 10,020 games had the return 0." in found.sentence
    assert _names(records.make(**_flat(0.0))).count("no learning") == 0


def test_a_plateau_far_from_the_best_game():
    def rises(t):
        return 100.0 * min(0.5, t)

    plateau = {"episode__return_mean": rises, "episode__return_max": 100.0}
    found = _find("plateau", records.make(**plateau, episode__return_min=0.0))
    assert found.severity == "hint"
    assert "since 675,000 steps: 50 then, 50 now" in found.sentence
    wide = {"episode__return_mean": rises, "episode__return_max": 500.0}
    assert _names(records.make(**wide, episode__return_min=0.0)) == [], "it hardly rose"
    solved = {"episode__return_mean": rises, "episode__return_max": 52.0}
    assert _names(records.make(**solved, episode__return_min=0.0)) == []


def test_values_that_explain_nothing():
    poor = {"value__explained_variance": -0.1, **_slow}
    assert "-0.10" in _find("poor values", records.make(**poor)).sentence
    assert "poor values" not in _names(records.make(value__explained_variance=-0.1)), (
        "returns that are all equal leave nothing to explain"
    )
    assert "poor values" not in _names(records.make(until=0.2, **poor))


@pytest.mark.parametrize("algorithm", ["dqn", "iqn"])
def test_cures_of_action_values_are_fields_that_they_read(algorithm):
    settings = {**records.SETTINGS, "algorithm": algorithm, "replay.reuse": 8.0}
    poor = records.make(value__explained_variance=-0.1, **_slow)
    cure = _find("poor values", poor, settings).cure
    assert cure == "Raise config.replay.reuse (8.0) or config.learner.passes (8)."
    nothing = records.make(**_flat(0.0))
    cure = _find("no reward", nothing, settings).cure
    assert cure.endswith("or raise config.actors.epsilon (0.0).")
    settings["schedules.epsilon"] = "linear(1, 0.05, 9)"
    cure = _find("no reward", nothing, settings).cure
    assert cure.endswith("or raise config.schedules.epsilon (linear(1, 0.05, 9)).")


def test_cures_name_the_schedule_that_overrides_a_field():
    settings = {**records.SETTINGS, "schedules.entropy_cost": "linear(0.1, 0, 9)"}
    entropy = {"policy__entropy": lambda t: 1.4 if t < 0.1 else 0.01}
    made = {
        "deterministic policy": records.make(**_flat(3.0, 40.0), **entropy),
        "no learning": records.make(**_flat(3.0, 40.0), policy__entropy=1.38),
        "no reward": records.make(**_flat(0.0)),
        "always action 1": records.make(policy__actions=[0, 0.999, 0.001], **_slow),
    }
    for name, each in made.items():
        cure = _find(name, each, settings).cure
        assert "config.schedules.entropy_cost (linear(0.1, 0, 9))" in cure, name
        assert "loss.entropy_cost" not in cure, name


# In a game of several players the return by player is known, and no mean is judged.
_GAME = {"episode__return_mean__a": 1.0, "episode__return_mean__b": -1.0}


@pytest.mark.parametrize("unknown", [_GAME, {"episode__count": 19}])
@pytest.mark.parametrize(
    "fault",
    [
        {"policy__entropy": lambda t: 1.4 if t < 0.1 else 0.01},
        {"policy__actions": [0.0005, 0.999, 0.0005]},
    ],
)
def test_without_a_return_what_reads_it_is_silent(unknown, fault):
    found = findings.find(records.make(**fault, **_slow, **unknown), records.SETTINGS)
    assert [each.name for each in found] == []


# A return that rises, and is still far from the best game.
_slow = {"episode__return_max": 900.0, "episode__return_min": 0.0}


def test_gradients_that_explode():
    found = _find(
        "exploding gradients", records.make(loss__gradient_norm=lambda t: 300.0**t)
    )
    assert "The gradient norm grew from 1.17 to 229." in found.sentence
    settings = {**records.SETTINGS, "optimizer.clip_norm": 0.0}
    off = _find(
        "exploding gradients",
        records.make(loss__gradient_norm=lambda t: 300.0**t),
        settings,
    )
    assert "Set a limit by config.optimizer.clip_norm (0.0)" in off.cure


def test_gradients_that_are_always_clipped():
    made = records.make(loss__gradient_norm=30.0)
    found = _find("clipped gradients", made)
    assert "is 30, so every step is clipped to 0.5" in found.sentence
    assert _names(made, {**records.SETTINGS, "optimizer.clip_norm": 0.0}) == []
    assert _names(records.make(loss__gradient_norm=3.0)) == []


def test_data_that_is_off_policy():
    assert "0.4 nats" in _find("large KL", records.make(vtrace__kl=0.4)).sentence
    lag = records.make(lag__mean=60.0)
    assert "60 updates old" in _find("large policy lag", lag).sentence
    assert _names(lag, {**records.SETTINGS, "actors.policy_delay": 50}) == []
    few = records.make(vtrace__effective_sample_size=0.1)
    assert "Only 10 %" in _find("few effective samples", few).sentence


def test_a_count_of_one_is_not_lowered():
    settings = {**records.SETTINGS, "learner.passes": 1, "actors.slots": 1}
    found = _find("large KL", records.make(vtrace__kl=0.4), settings)
    assert found.cure == "Lower config.optimizer.learning_rate (0.001)."


def test_an_action_that_is_always_taken():
    always = {"policy__actions": [0.0, 0.999, 0.001]}
    found = _find("always action 1", records.make(**always, **_slow))
    assert "Action 1 is taken 99.9 % of the time" in found.sentence
    assert "always action 1" not in _names(records.make(**always)), "it is the best"


def test_counts_of_actions_are_as_good_as_shares():
    counts = {"policy__actions": [0, 4995, 5]}
    found = _find("always action 1", records.make(**counts, **_slow))
    assert "99.9 %" in found.sentence


def test_an_action_that_was_never_taken():
    never = {"policy__actions": [0.5, 0.5, 0.0]}
    found = _find("unused actions", records.make(**never))
    assert "not even at first: 2." in found.sentence
    masked = {**records.SETTINGS, "agent.action_mask_key": "mask"}
    assert _names(records.make(**never), masked) == []

    def unlearned(t):
        return [0.3, 0.3, 0.4] if t < 0.1 else [0.5, 0.5, 0.0]

    assert _names(records.make(policy__actions=unlearned)) == []


def test_games_that_come_to_end_at_their_limit_only():
    limit = {"episode__length_mean": lambda t: 1000.0 if t > 0.3 else 100.0}
    found = _find("games at their limit", records.make(**limit, **_slow))
    assert "Every game has 1,000 steps" in found.sentence
    assert "The first games had 100." in found.sentence
    assert _names(records.make(**limit)) == [], "long games may be the aim"
    fixed = records.make(episode__length_mean=200.0, **_slow)
    assert "games at their limit" not in _names(fixed)
