"""The moving parts of a run of several policies, in this process."""

import os

from impala_mp.runtime import program
from impala_mp.workers import builders
from tests.support import two_policies


def config(**overrides):
    """That of two policies; dotted names as keys."""
    made = two_policies.get_config()
    made.update_from_flattened_dict(overrides)
    return made


def shared(made, folder):
    """The shared memory of each policy."""
    environments = program._probe(made)
    policies, _ = program.prepare(made, None, environments, 2)
    return program.allocation.allocate(policies, str(folder), 2, made)


def loops(policies):
    """The loop of each policy, in the process that has it; not restored."""
    for each in policies:
        os.makedirs(each.checkpoints, exist_ok=True)
    return [
        builders.make_learner(each.topology.learner(each.number), each)
        for each in policies
    ]


def actor(policies, incarnation=0):
    """Actor 0, which has been reset."""
    return builders.make_actor(policies[0].topology.actors[0], incarnation, policies)
