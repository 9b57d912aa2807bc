"""Encoders by kind of array, several of them, masks, and normalisation."""

import gymnasium
import numpy as np
import pytest
import torch

from impala_mp import errors, nest, specs, types
from impala_mp.config import live_hyperparameters
from impala_mp.environments import spaces
from impala_mp.networks import agent, encoders, normalisation, torsos
from impala_mp.runtime import allocation
from tests.support import builders, spaces as support_spaces


def _spec(name):
    return spaces.observation_spec(support_spaces._SPACES[name])


def _network(**overrides):
    return builders.config(**overrides).network


def _samples(name, count=6):
    space = support_spaces._SPACES[name]
    space.seed(0)
    batched = gymnasium.vector.utils.batch_space(space, count)
    batched.seed(0)
    return nest.map_structure(torch.from_numpy, batched.sample())


@pytest.mark.parametrize("name", support_spaces.OBSERVATIONS)
def test_every_space_is_encoded_row_by_row(name):
    torch.manual_seed(0)
    made = encoders.make(_network(), _spec(name))
    rows = _samples(name)
    features = made(rows)
    assert features.shape == (6, encoders.num_features(made, _spec(name)))
    assert features.dtype == torch.float32
    assert features.isfinite().all()
    one = made(nest.map_structure(lambda leaf: leaf[2:3], rows))
    torch.testing.assert_close(one[0], features[2])
    assert (features[0] - features[1]).abs().max() > 1e-6


def test_defaults_by_kind():
    names = {
        name: encoders.default(_spec(name))
        for name in ("box", "image", "bool", "discrete", "multi", "binary")
    }
    assert names == {
        "box": "mlp",
        "image": "nature",
        "bool": "minatar",
        "discrete": "embedding",
        "multi": "embedding",
        "binary": "mlp",
    }


@pytest.mark.parametrize(
    ("shapes", "size", "units"),
    [
        ([(3,), (3,)], 0, 100),  # two mlps
        ([(36, 36, 3), (3,)], 0, 256),  # nature gives 512
        ([()], 0, 64),  # one embedding gives 16
        ([(3,), (3,)], 32, 32),
    ],
)
def test_the_joint_layer_is_as_wide_as_the_widest_encoder(shapes, size, units):
    spec = {
        str(i): specs.array_spec(shape, np.uint8 if len(shape) == 3 else np.float32)
        if shape
        else specs.CategoriesSpec((), np.dtype(np.int64), num_values=(4,), start=(0,))
        for i, shape in enumerate(shapes)
    }
    sizes = {"network.hidden_sizes": (100,), "network.joint_size": size}
    made = encoders.make(_network(**sizes), spec)
    assert encoders.num_features(made, spec) == units


@pytest.mark.parametrize("name", ["discrete", "multi", "multi2"])
def test_categories_as_one_hot(name):
    """Against one_hot of each element; a start is taken off."""
    spec, rows = _spec(name), _samples(name)
    one_hot = encoders._OneHot(spec)(rows)
    elements = rows.reshape(6, -1) - torch.tensor(spec.start)
    expected = [
        torch.nn.functional.one_hot(elements[:, i], n)
        for i, n in enumerate(spec.num_values)
    ]
    assert torch.equal(one_hot, torch.cat(expected, -1).float())
    embedding = encoders._Embedding(spec, 3)
    starts = np.cumsum([0, *spec.num_values])[:-1]
    table = embedding.table.weight
    expected = torch.cat(
        [table[elements[:, i] + start] for i, start in enumerate(starts)], -1
    )
    assert torch.equal(embedding(rows), expected)


def own(observation_spec, config):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(5))


class _Whole(torch.nn.Module):
    def forward(self, observation):
        return observation["gears"].float()


def whole(observation_spec, config):
    assert set(observation_spec) == {"mode", "arm", "gears"}
    return _Whole()


def test_a_users_own_by_key_or_for_all():
    config = _network()
    config.encoders["arm/1"] = f"{__name__}:own"
    made = encoders.make(config, _spec("dict"))
    made(_samples("dict"))
    assert [type(leaf.encoder).__name__ for leaf in made.leaves] == [
        *("MLP", "Sequential", "_Embedding", "_Embedding"),
    ]
    assert isinstance(made.leaves[1].encoder[1], torch.nn.Linear)
    config = _network(**{"network.torso": f"{__name__}:whole"})
    assert encoders.make(config, _spec("dict"))(_samples("dict")).shape == (6, 2)


@pytest.mark.parametrize(
    ("overrides", "keys", "space", "words"),
    [
        ({"network.torso": "mlp"}, {}, "dict", "arm/0, arm/1, gears, mode"),
        ({}, {"mod": "mlp"}, "dict", "'mod', which is no part"),
        ({}, {"mode": "mlp"}, "box", r"\. Set config\.network\.torso"),
        (
            {},
            {"mode": "nature"},
            "dict",
            r"network.encoders.mode \('nature'\) does not fit",
        ),
        ({}, {"arm/1": "embedding"}, "dict", "must be auto"),
        (
            {"network.torso": f"{__name__}:no_module"},
            {},
            "box",
            r"returns 3\. It must return a torch\.nn\.Module",
        ),
        ({}, {"mode": 3}, "dict", r"network.encoders.mode \(3\) must be a name"),
    ],
)
def test_encoders_that_do_not_fit_are_refused(overrides, keys, space, words):
    config = _network(**overrides)
    for key, value in keys.items():
        config.encoders[key] = value
    with pytest.raises(errors.BadInput, match=words):
        encoders.make(config, _spec(space))


class _Own(torch.nn.Module):
    def forward(self, observation):
        return observation @ torch.zeros(99, 2)


def test_a_module_that_cannot_take_the_observations():
    """Without a line of the user's a sentence, with one the user's own error."""
    with pytest.raises(errors.BadInput, match=r"cannot take the .* float32 \[1, \d+\]"):
        encoders.num_features(torch.nn.Linear(99, 2), _spec("box"))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        encoders.num_features(_Own(), _spec("box"))


def _masked_agent(key="allowed", observation="masked", action="discrete"):
    environment = specs.EnvironmentSpec(
        _spec(observation), spaces.action_spec(support_spaces._SPACES[action]), 1
    )
    config = builders.config(**{"agent.action_mask_key": key})
    torch.manual_seed(0)
    return agent.make(config, environment)


def test_masked_actions_are_never_taken_and_the_logits_say_so():
    policy = _masked_agent()
    observation = _samples("masked", 500)
    observation["allowed"][:, 0] = 1
    allowed = observation["allowed"] != 0
    step = types.TimeStep(
        torch.ones(500, dtype=torch.uint8),
        torch.zeros(500),
        torch.ones(500),
        observation,
    )
    for options in ({}, {"epsilon": 0.5}, {"greedy": True}):
        output, _ = policy.step(step, (), **options)
        assert allowed.gather(1, output.action[:, None]).all()
        probabilities = output.policy_logits.softmax(-1)
        assert not probabilities[~allowed].any()
        assert (probabilities[allowed] > 0).all()
    rows = nest.map_structure(lambda leaf: leaf[None], step)
    unrolled = policy.unroll(rows, output.action[:0][None], ())
    torch.testing.assert_close(
        unrolled.policy_logits[0].softmax(-1),
        policy.step(step, ())[0].policy_logits.softmax(-1),
    )
    unrolled.policy_logits.log_softmax(-1).exp().square().sum().backward()
    gradients = [p.grad for p in policy.network.policy.parameters()]
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"key": "alowed"}, "'allowed', 'what'"),
        ({"observation": "box"}, "is no part of the observation"),
        ({"action": "multi"}, "has 5 elements for 9 actions"),
        ({"action": "box"}, "needs Discrete or MultiDiscrete"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(options, words):
    with pytest.raises(errors.BadInput, match=words):
        _masked_agent(**options)


def test_epsilon_and_a_box_are_refused():
    environment = specs.EnvironmentSpec(
        _spec("box"), spaces.action_spec(support_spaces._SPACES["box"]), 1
    )
    for overrides in (
        {"actors.epsilon": 0.1},
        {"schedules.epsilon": "linear(1, 0, 100)"},
    ):
        config = builders.config(**overrides)
        live = live_hyperparameters.of_config(config)
        with pytest.raises(errors.BadInput, match="actors.epsilon"):
            allocation.make_agent(config, live, environment)


def test_statistics_merge_as_if_all_had_come_at_once():
    rng = np.random.default_rng(0)
    batches = [rng.normal(5.0, 3.0, (size, 4)) for size in (2, 30, 7, 200)]
    one = normalisation.Normaliser((4,))
    for batch in batches:
        one.adapt(torch.from_numpy(batch).float(), torch.ones(()))
    whole = np.concatenate(batches)
    assert one.count.item() == len(whole)
    np.testing.assert_allclose(one.mean.numpy(), whole.mean(0), rtol=1e-5)
    np.testing.assert_allclose(one.variance.numpy(), whole.var(0), rtol=1e-4)
    normalised = one(torch.from_numpy(whole).float())
    assert normalised.mean(0).abs().max() < 1e-4
    assert (normalised.std(0, correction=0) - 1.0).abs().max() < 1e-3
    before = one.mean.clone()
    one.adapt(torch.ones(3, 4), torch.zeros(()))
    assert torch.equal(one.mean, before)
    assert one.count.item() == len(whole)


@pytest.mark.parametrize(("shape", "level"), [((2000, 3), 1e7), ((50, 2, 4), -1e7)])
def test_statistics_of_small_differences_between_large_numbers(shape, level):
    """Float32 has whole numbers only at this level, and a sum of them has fewer."""
    rows = level + np.random.default_rng(0).integers(-3, 4, shape)
    one = normalisation.Normaliser(shape[1:])
    one.adapt(torch.from_numpy(rows).float(), torch.ones(()))
    np.testing.assert_allclose(one.mean.numpy(), rows.mean(0), atol=0.51)
    np.testing.assert_allclose(one.variance.numpy(), rows.var(0), rtol=1e-5)


class _Normalising(torch.nn.Module):
    """A torso of one's own that moves its statistics by itself."""

    def __init__(self, spec):
        super().__init__()
        self.normaliser = normalisation.Normaliser(spec.shape)

    def forward(self, observation):
        return self.normaliser(observation.float())

    def adapt(self, observation, finite):
        self.normaliser.adapt(observation.float(), finite)


def normalising(observation_spec, config):
    return _Normalising(observation_spec)


def test_a_torso_of_ones_own_moves_the_same_statistics():
    environment = specs.EnvironmentSpec(
        _spec("box"), spaces.action_spec(support_spaces._SPACES["discrete"]), 1
    )
    own = builders.config(**{"network.torso": f"{__name__}:normalising"})
    ours = builders.config(**{"network.normalise_observations": True})
    networks = [agent.make(config, environment).network for config in (own, ours)]
    rows = _samples("box", 12).unflatten(0, (3, 4))
    for network in networks:
        network.adapt(rows, torch.ones(()))
        network.adapt(2.0 * rows, torch.ones(()))
        network.adapt(rows, torch.zeros(()))
    first, second = (network.torso.normaliser for network in networks)
    assert first.count == second.count == 24
    assert torch.equal(first.mean, second.mean)
    assert first.mean.abs().sum() > 0
    assert torch.equal(first.variance, second.variance)


def test_a_value_whose_square_overflows_spoils_no_statistics():
    """A sentinel of 1e30, say: its element stays as it was, the others go on."""
    one = normalisation.Normaliser((2,))
    rows = torch.arange(20.0).view(10, 2)
    one.adapt(rows, torch.ones(()))
    before = one.mean.clone(), one.variance.clone()
    rows[3, 1] = 1e30
    one.adapt(rows, torch.ones(()))
    assert (one.mean[1], one.variance[1]) == (before[0][1], before[1][1])
    torch.testing.assert_close(one.mean[0], before[0][0])
    assert one(rows).isfinite().all()


class _AdaptLayer(torch.nn.Flatten):
    """A torso with a layer that happens to be called so."""

    def __init__(self):
        super().__init__()
        self.adapt = torch.nn.Linear(1, 1)


def layered(observation_spec, config):
    return _AdaptLayer()


def test_a_layer_called_adapt_is_none_of_ours():
    environment = specs.EnvironmentSpec(
        _spec("box"), spaces.action_spec(support_spaces._SPACES["discrete"]), 1
    )
    config = builders.config(**{"network.torso": f"{__name__}:layered"})
    network = agent.make(config, environment).network
    network.adapt(_samples("box", 12).unflatten(0, (3, 4)), torch.ones(()))


def no_module(observation_spec, config):
    return 3


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("name", ["minatar", "nature"])
def test_learning_computes_what_acting_does(name, layer_norm):
    spec = specs.array_spec((36, 40, 3), np.uint8)
    torch.manual_seed(0)
    made = torsos.conv_encoder("network.torso", name, spec, layer_norm)
    images = torch.rand(7, *spec.shape)

    def gradients(output):
        parameters = list(made.parameters())
        return torch.autograd.grad((output * weights).sum(), parameters)

    with torch.no_grad():
        acted = made(images)
    weights = torch.rand(acted.shape)
    planes = made.convolutions(images.permute(0, 3, 1, 2))
    plain, learned = made.output(planes.flatten(1)), made(images)
    torch.testing.assert_close(learned, acted, rtol=1e-5, atol=1e-6)
    pairs = zip(gradients(learned), gradients(plain), strict=True)
    for mine, theirs in pairs:
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
