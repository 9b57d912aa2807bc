"""Small configs, and a run's moving parts in one process."""

import itertools
from typing import NamedTuple

import ml_collections
import numpy as np
import torch

from impala_mp import config as config_lib, nest, specs
from impala_mp.config import derived, live_hyperparameters
from impala_mp.environments import factory
from impala_mp.networks import agent
from impala_mp.runtime import allocation, program
from impala_mp.transport import shared as shared_lib
from impala_mp.workers import actor, batcher, builders, learner_loop


def config(**overrides):
    """A tiny config; dotted names as keys."""
    made = config_lib.get_impala_config()
    made.environment.id = "Catch"
    made.network.hidden_sizes = (16,)
    made.actors.count = 2
    made.actors.environments = 3
    made.batch_size = 6
    made.unroll_length = 5
    made.learner.threads = 1
    made.learner.device = "cpu"
    made.health.checksums = True
    made.evaluation.during_training = made.evaluation.film = False
    if overrides.get("network.core", "none") != "none":
        made.network.core_size = 8
    made.update_from_flattened_dict(overrides)
    return made


def train_in_processes(made, path):
    """A whole training in the folder `path`; this process is the supervisor.

    All trainings of this process share a fork server, which imports torch once.
    """
    made = made.copy_and_resolve_references()  # calibration sets fields
    threads = torch.get_num_threads()
    try:
        program.train(made, str(path))
    finally:
        torch.set_num_threads(threads)


class Parts(NamedTuple):
    """What `shared` needs, and what tests look at."""

    shared: shared_lib.Shared
    actors: list[actor.Actor]
    training: learner_loop.LearnerLoop


def shared(config, checkpoints, cores=()):
    """All shared memory of a run, and no process."""
    environment = factory.probe(config.environment)
    policy = agent.make(config, environment)
    live = live_hyperparameters.of_config(config)
    one = allocation.Policy("", config, live, environment, policy)
    (made,) = allocation.allocate([one], str(checkpoints), 2, cores=cores)
    return made


def parts(config, checkpoints):
    """A run in this process: actors that have been reset, and an unrestored learner."""
    made = shared(config, checkpoints)
    actors = [builders.make_actor(seat, 0, [made]) for seat in made.topology.actors]
    return Parts(made, actors, builders.make_learner(made.topology.learner(), made))


def make_batcher(shared):
    rings = [shared.rings.ring(number) for number in shared.topology.rings()]
    bell = shared.rings.learner_doorbells[0]
    return batcher.Batcher(rings, bell, shared.batch, "cpu")


def random_batch(config, environment, policy, seed=0, size=None):
    """A trajectory of random rows with episode ends, as tensors [T+1, B, ...]."""
    rng = np.random.default_rng(seed)
    spec = specs.trajectory_spec(
        environment,
        policy.output_spec(),
        policy.core_state_spec(),
        config.unroll_length,
        size or config.batch_size,
        num_predecessors=derived.num_predecessors(config),
    )
    batch = nest.map_structure(lambda leaf: np.zeros(leaf.shape, leaf.dtype), spec)
    num_actions = getattr(environment.action, "num_actions", None)

    def act(action):
        if num_actions:
            action[:] = rng.integers(num_actions, size=action.shape)
        else:  # a Box
            action[:] = rng.normal(size=action.shape)

    _randomise_rows(rng, batch.time_step)
    logits = batch.agent_output.policy_logits
    logits[:] = rng.normal(size=logits.shape)
    act(batch.agent_output.action)
    _randomise_state(rng, batch.core_state, num_actions)
    if batch.before:
        _randomise_rows(rng, batch.before.time_step)
        act(batch.before.action)
        _randomise_state(rng, batch.before.core_state, num_actions)
        batch.before.there[:] = rng.random(batch.before.there.shape) < 0.6
    return nest.map_structure(torch.from_numpy, batch)


def _randomise_rows(rng, time_step):
    rows, columns = time_step.step_type.shape
    step_type = np.ones((rows, columns), np.uint8)
    last = rng.random((rows, columns)) < 0.2
    last[1:] &= ~last[:-1]
    step_type[last] = 2
    step_type[1:][last[:-1]] = 0
    time_step.step_type[:] = step_type
    time_step.reward[:] = rng.normal(size=(rows, columns))
    time_step.reward[step_type == 0] = 0.0
    time_step.discount[:] = ~(last & (rng.random((rows, columns)) < 0.5))
    time_step.observation[:] = rng.normal(size=time_step.observation.shape)


def _randomise_state(rng, state, num_actions):
    for leaf in state:
        if leaf.dtype == np.float32:
            leaf[:] = rng.normal(size=leaf.shape)
        else:
            leaf[:] = rng.integers(num_actions, size=leaf.shape)


def spoil_step(the_learner, number):
    """The `number`-th step of the next update sees a number that is not finite."""
    step, turns = the_learner._step, itertools.count()

    def spoiled(parts):
        if next(turns) != number:
            return step(parts)
        (batch, *others), *rest = parts
        observation = batch.time_step.observation.clone()
        observation[1, -1] = np.nan
        time_step = batch.time_step._replace(observation=observation)
        bad = batch._replace(time_step=time_step)
        return step([(bad, *others), *rest])

    the_learner._step = spoiled


def environment_settings(name, **kwargs):
    settings = config_lib.get_base_config().environment
    settings.id, settings.kwargs = name, ml_collections.ConfigDict(kwargs)
    return settings


def impala_config(**overrides):
    """IMPALA's config but for `overrides`; dotted names as keys."""
    made = config_lib.get_impala_config()
    made.update_from_flattened_dict(overrides)
    return made


# Episodes that end often, both ways: falls, and a limit of 7 steps.
SHORT_EPISODES = {
    "environment.id": "tests.support.short_cartpole:ShortCartPole-v0",
    "network.core": "lstm",
    "network.last_action": True,
    "network.last_reward": True,
}


def act(parts, unrolls=1):
    for one in parts.actors:
        one.fetch()
        for _ in range(unrolls):
            one.unroll()


def short_training(name="Catch", **overrides):
    """A config of a training in this process, and of a short evaluation."""
    made = config(**{"environment.id": name, "runtime.mode": "lockstep"})
    made.total_agent_steps = 300
    made.evaluation.episodes = made.evaluation.training_episodes = 10
    made.evaluation.environments = 5
    made.evaluation.max_steps = 50
    made.update_from_flattened_dict(overrides)
    return made


def slot_spec(config):
    """The layout of one slot."""
    environment = factory.probe(config.environment)
    return allocation.layouts(config, environment, agent.make(config, environment)).slot
