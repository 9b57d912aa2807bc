"""The control block: heartbeats and live values."""

import numpy as np

from impala_mp.transport import control_block


def test_a_process_that_never_beat_is_silent_since_the_block_was_made():
    row = control_block.ControlBlock(2).row(1)
    assert 0.0 <= row.heartbeat_age_secs() < 60.0  # not since the machine was booted


def test_an_override_comes_before_a_schedule():
    block = control_block.ControlBlock(1)
    block.set("epsilon", 0.25)
    block.set("clip_rho_threshold", 1.0)
    assert block.overrides() == {}
    block.override({"epsilon": 0.5, "clip_rho_threshold": np.inf})
    block.set("epsilon", 0.125)  # the schedule goes on
    assert (block.get("epsilon"), block.get("clip_rho_threshold")) == (0.5, np.inf)
    assert block.overrides() == {"epsilon": 0.5, "clip_rho_threshold": np.inf}
    block.override({"epsilon": None})
    assert block.get("epsilon") == 0.125
    assert block.overrides() == {"clip_rho_threshold": np.inf}
    assert block.num_changes == 4
