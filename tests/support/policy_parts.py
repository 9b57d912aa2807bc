"""The moving parts of a run of several policies, in this process."""

import os

from impala_mp.runtime import program
from impala_mp.workers import builders
from tests.support import two_policies


def config(**overrides):
    """Returns the config of two policies; `overrides` are by dotted names."""
    made = two_policies.get_config()
    made.update_from_flattened_dict(overrides)
    return made


def shared(made, folder, cores=()):
    """Returns the shared memory of each policy."""
    environments = program.probe(made)
    policies, _ = program.prepare(made, None, environments, 2)
    return program.allocation.allocate(policies, str(folder), 2, made, cores=cores)


def loops(policies):
    """Returns the loop of each policy, made for its process and not restored."""
    for each in policies:
        os.makedirs(each.checkpoints, exist_ok=True)
    return [
        builders.make_learner(each.topology.learner(each.number), each)
        for each in policies
    ]


def actor(policies, incarnation=0):
    """Returns actor 0 after its reset."""
    return builders.make_actor(policies[0].topology.actors[0], incarnation, policies)
