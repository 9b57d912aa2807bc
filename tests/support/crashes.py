"""Trainings whose steps are not finite."""

import numpy as np

from tests.support import builders


def train(parts, updates, spoil=None):
    parts.training.publish()
    for _ in range(updates):
        for one in parts.actors:
            one.fetch()
            one.unroll()
        if spoil:
            spoil(parts.shared.rings.ring(1).peek(0))
        parts.training.step()


def spoiled_reward(slot):
    slot.time_step.reward[3, 2] = np.nan


def files(tmp_path):
    return sorted((tmp_path / "crashes").iterdir())


def parts(tmp_path, **overrides):
    return builders.parts(builders.config(**overrides), tmp_path / "checkpoints")
