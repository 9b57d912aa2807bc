"""The drift detector compares wherever trajectories are: in a batch on the device, or
in the host's memory on their way into a replay."""

import pytest
import torch

from tests.support import builders

_KINDS = {
    "batches": {},
    "half_replayed": {"replay.ratio": 0.5, "batch_size": 6},
    "on_their_way": {"algorithm": "dqn", "replay.reuse": 3.0, "target.period": 2},
}


@pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)], ids=["cpu", "cuda"]
)
@pytest.mark.parametrize("kind", _KINDS)
def test_no_drift_wherever_the_learner_is(tmp_path, kind, device):
    torch.backends.cuda.matmul.allow_tf32 = False
    own = {"learner.device": device, "health.drift_interval": 1}
    recurrent = builders.SHORT_EPISODES
    made = builders.config(**recurrent, **_KINDS[kind], **own)
    parts = builders.parts(made, tmp_path)
    parts.training.restore(print)
    for _ in range(8):
        builders.act(parts)
        while parts.training.turn():
            pass
    detector = parts.training._drift
    assert detector.alarms == 0
    assert 0.0 <= detector.worst < 1e-4
