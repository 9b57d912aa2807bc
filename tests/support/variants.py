"""Configs that take a learner through its paths: overrides of `builders.config`."""

RECURRENT = {"network.core": "lstm", "network.last_action": True}
GRU = {**RECURRENT, "network.core": "gru"}
GTRXL = {**RECURRENT, "network.core": "gtrxl", "network.gtrxl.window": 3}
REPLAYED = {
    **RECURRENT,
    "replay.ratio": 0.5,
    "replay.burn_in": True,
    "replay.clear_policy_cost": 0.1,
    "replay.clear_value_cost": 0.1,
    "replay.trust_region": 0.5,
    "learner.micro_batches": 2,
}
POPART = {"loss.popart": True, "loss.popart_beta": 0.1}
IMPACT = {
    **RECURRENT,
    **POPART,
    "algorithm": "impact",
    "learner.passes": 2,
    "target.period": 2,
}
IQN = {**RECURRENT, "algorithm": "iqn", "target.period": 2}
