"""Table of every metric: key, unit, meaning, and how to read it.

Source of docs/reference/metrics.md. A key in braces stands for one part of a key, such
as a task. Means are over the updates since the record before.
"""

from typing import NamedTuple


class Metric(NamedTuple):
    """One key of metrics.jsonl, or a pattern of keys."""

    key: str
    unit: str
    meaning: str
    reading: str = ""  # when to look at it, and what a value means


class Section(NamedTuple):
    """Metrics under one heading."""

    title: str
    metrics: tuple[Metric, ...]


_PROGRESS = Section(
    "Progress",
    (
        Metric(
            "agent_steps",
            "steps",
            "Agent steps learned, without replayed ones.",
            "The x axis of every curve.",
        ),
        Metric(
            "env_frames",
            "frames",
            "Emulator frames of these agent steps.",
            "Compare it with papers that count frames.",
        ),
        Metric("updates", "updates", "Batches learned."),
        Metric("time_secs", "s", "Wall-clock time of learning, over all runs."),
        Metric(
            "throughput/agent_steps_per_sec",
            "steps/s",
            "Agent steps learned a second since the record before.",
            "The speed of the training.",
        ),
        Metric(
            "throughput/env_frames_per_sec",
            "frames/s",
            "The same in emulator frames.",
        ),
        Metric("throughput/updates_per_sec", "updates/s", "Updates a second."),
    ),
)

_GAMES = Section(
    "Games",
    (
        Metric(
            "episode/return_mean",
            "return",
            "Mean return of the last 100 full games that were learned.",
            "The learning curve; exploration is included.",
        ),
        Metric("episode/return_min", "return", "Lowest of these returns."),
        Metric("episode/return_max", "return", "Highest of these returns."),
        Metric("episode/length_mean", "steps", "Mean length of these games."),
        Metric("episode/count", "games", "Full games learned since the first run."),
        Metric(
            "episode/return_mean/{task}",
            "return",
            "Mean return of the last 100 full games of one task.",
            "Written with several tasks only.",
        ),
        Metric(
            "env/{number}",
            "its own",
            "Mean of a number of `info` at the end of the last 100 games that have it.",
            "`is_success` is the success rate.",
        ),
        Metric("env/{number}/min", "its own", "Lowest of these numbers."),
        Metric("env/{number}/max", "its own", "Highest of these numbers."),
        Metric("env/{number}/{task}", "its own", "Mean of the number in one task."),
        Metric("episode/count/{task}", "games", "Full games learned, of one task."),
        Metric(
            "evaluation/return_mean",
            "return",
            "Mean return of an evaluation with fixed parameters.",
            "Written with config.evaluation.during_training only.",
        ),
        Metric(
            "evaluation/return_std", "return", "Standard deviation of these returns."
        ),
        Metric("evaluation/return_min", "return", "Lowest of these returns."),
        Metric("evaluation/return_max", "return", "Highest of these returns."),
        Metric("evaluation/episodes", "games", "Games of this evaluation."),
        Metric(
            "evaluation/return_low",
            "return",
            "Lower end of the 95 % interval of the mean (Student's t).",
        ),
        Metric("evaluation/return_high", "return", "Upper end of this interval."),
        Metric(
            "evaluation/agent_steps", "steps", "Agent steps of the policy that played."
        ),
        Metric(
            "evaluation/return_mean/{task}",
            "return",
            "Mean return of an evaluation of one task.",
        ),
    ),
)

_LOSS = Section(
    "Loss",
    (
        Metric("loss/total", "loss", "Sum of all terms, as it is differentiated."),
        Metric(
            "loss/policy_gradient",
            "loss",
            "Term of the policy: IMPALA's gradient or IMPACT's surrogate.",
        ),
        Metric(
            "loss/baseline",
            "loss",
            "Term of the values, times config.loss.baseline_cost.",
            "A very large value drowns the policy: set config.loss.popart.",
        ),
        Metric(
            "loss/entropy",
            "loss",
            "Entropy of the policy, times minus the entropy cost.",
            "Close to 0 early in a run: the policy became deterministic too soon.",
        ),
        Metric(
            "loss/kl",
            "loss",
            "IMPACT: config.impact.kl_cost times KL(target policy, policy).",
        ),
        Metric(
            "loss/policy_cloning",
            "loss",
            "Replay: CLEAR's term that holds on to the recorded policy.",
        ),
        Metric(
            "loss/value_cloning",
            "loss",
            "Replay: CLEAR's term that holds on to the recorded values.",
        ),
        Metric(
            "loss/gradient_norm",
            "norm",
            "Global norm of the gradient, before clipping.",
            "Always above config.optimizer.clip_norm: every step is clipped.",
        ),
        Metric(
            "gradient_norm/{part}",
            "norm",
            "Norm of the gradient of one part: torso, core, policy or baseline.",
            "0: the network has no such part.",
        ),
        Metric("loss/learning_rate", "rate", "Learning rate in force."),
    ),
)

_POLICY = Section(
    "Policy and values",
    (
        Metric(
            "policy/entropy",
            "nats",
            "Mean entropy of the policy; of n actions it is at most ln n.",
            "Falls slowly in a healthy run. Near 0 early: raise"
            " config.loss.entropy_cost.",
        ),
        Metric(
            "policy/actions",
            "transitions",
            "Transitions by action taken, of up to 32; a histogram in TensorBoard.",
            "One action alone: the policy has collapsed.",
        ),
        Metric(
            "value/mean",
            "return",
            "Mean value V of the batch, in units of reward.",
            "Near the discounted return that is left from a typical state.",
        ),
        Metric(
            "value/explained_variance",
            "share",
            "1 - variance of (vs - V) / variance of vs; -1 at least.",
            "Rises towards 1. At or below 0 for long: values are no better than their"
            " mean.",
        ),
        Metric("advantage/mean", "return", "Mean policy-gradient advantage."),
        Metric(
            "advantage/std",
            "return",
            "Standard deviation of the advantages.",
            "Near 0: nothing tells good actions from bad ones.",
        ),
    ),
)

_VTRACE = Section(
    "Importance weights",
    (
        Metric(
            "vtrace/rho_mean",
            "ratio",
            "Mean of the unclipped ratio pi/mu; 0 on reset rows.",
            "Near the share of learnable rows: the data is almost on-policy.",
        ),
        Metric(
            "vtrace/rho_clipped",
            "share",
            "Transitions whose ratio is above clip_rho_threshold.",
        ),
        Metric(
            "vtrace/c_clipped",
            "share",
            "Transitions whose ratio is above clip_c_threshold.",
        ),
        Metric(
            "vtrace/effective_sample_size",
            "share",
            "(sum of ratios)^2 / sum of squared ratios, as a share of the batch.",
            "Low: few transitions carry the update, because the policy lag is large.",
        ),
        Metric(
            "vtrace/kl",
            "nats",
            "Mean KL(behaviour policy, learner's policy).",
            "How far the policy moved since the data was recorded.",
        ),
        Metric(
            "impact/ratio_clipped",
            "share",
            "IMPACT: transitions whose surrogate ratio leaves the clip range.",
        ),
        Metric(
            "impact/kl_target",
            "nats",
            "IMPACT: mean KL(target policy, learner's policy).",
            "Rises over passes: set config.impact.kl_cost or move the target sooner.",
        ),
        Metric("popart/mean", "return", "PopArt: running mean of value targets."),
        Metric(
            "popart/scale",
            "return",
            "PopArt: running deviation of value targets, from 1e-4 to 1e15.",
            "At a limit values are not at unit scale: multiply the rewards.",
        ),
        Metric("popart/mean/{task}", "return", "PopArt: the mean of one task."),
        Metric("popart/scale/{task}", "return", "PopArt: the deviation of one task."),
    ),
)

_LAG = Section(
    "Policy lag",
    (
        Metric(
            "lag/mean",
            "updates",
            "Mean policy lag of the learned transitions.",
            "About the number of batches that the rings hold.",
        ),
        Metric("lag/max", "updates", "Largest policy lag."),
        Metric("lag/p50", "updates", "Median policy lag."),
        Metric("lag/p95", "updates", "95th percentile of the policy lag."),
        Metric(
            "lag/histogram",
            "transitions",
            "Transitions by policy lag, in fixed buckets; a histogram in TensorBoard.",
            "Lower bounds of the buckets: 0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64.",
        ),
        Metric("lag/age_mean_secs", "s", "Mean time from commit to learning."),
        Metric("lag/age_max_secs", "s", "Longest time from commit to learning."),
    ),
)

_REPLAY = Section(
    "Replay",
    (
        Metric("replay/size", "trajectories", "Trajectories that can be drawn."),
        Metric("replay/priority_mean", "priority", "Mean priority of these."),
        Metric(
            "replay/age_mean_updates",
            "updates",
            "Mean age of the drawn trajectories.",
            "Large: old data is learned; lower config.replay.memory_mib.",
        ),
        Metric("replay/weight_mean", "ratio", "Mean importance weight of the drawn."),
        Metric(
            "replay/dropped_share",
            "share",
            "Replayed transitions that the trust region leaves out.",
            "Near 1: replay contributes nothing; raise config.replay.trust_region.",
        ),
    ),
)

_TIME = Section(
    "Time",
    (
        Metric(
            "time/learner_wait",
            "share",
            "Learner's time spent waiting for data.",
            "High: the actors are the limit.",
        ),
        Metric("time/learner_batch", "share", "Learner's time spent copying slots."),
        Metric("time/learner_update", "share", "Learner's time spent on updates."),
        Metric("time/learner_publish", "share", "Learner's time spent publishing."),
        Metric("time/actor_environment", "share", "Actors' time in environments."),
        Metric("time/actor_inference", "share", "Actors' time in inference."),
        Metric(
            "time/actor_wait",
            "share",
            "Actors' time spent waiting for a free slot.",
            "High: the learner is the limit.",
        ),
        Metric(
            "time/environment_step_ms",
            "ms",
            "Actor time in environments for each agent step.",
        ),
        Metric(
            "time/inference_step_ms",
            "ms",
            "Actor time in inference for each agent step.",
        ),
    ),
)

_HEALTH = Section(
    "Health",
    (
        Metric("health/processes_alive", "processes", "Processes that live."),
        Metric("health/processes_total", "processes", "Processes that should live."),
        Metric("health/restarts", "restarts", "Restarts since the first run."),
        Metric(
            "health/committed",
            "trajectories",
            "Trajectories that actors committed since the first run.",
            "Equals learned + discarded + in flight, always.",
        ),
        Metric("health/learned", "trajectories", "Trajectories learned."),
        Metric(
            "health/discarded",
            "trajectories",
            "Trajectories discarded: too old, or lost with a learner or a stop.",
        ),
        Metric(
            "health/in_flight",
            "trajectories",
            "Trajectories in the rings, or taken and not yet learned.",
        ),
        Metric(
            "health/updates_skipped",
            "updates",
            "Updates skipped because loss or gradient was not finite.",
            "Above 0: see crashes/ and impala-diagnose.",
        ),
        Metric(
            "health/skipped_share", "share", "Updates skipped since the record before."
        ),
        Metric(
            "health/bad_data",
            "unrolls",
            "Unrolls discarded because of NaN, wrong shapes or wrong dtypes.",
            "Above 0: run impala-train --check.",
        ),
        Metric(
            "health/observations_outside",
            "observations",
            "Observations outside their space, which were used.",
        ),
        Metric(
            "health/torn_reads_retried",
            "fetches",
            "Fetches of parameters that were repeated.",
            "Harmless; many mean that updates are short and parameters large.",
        ),
        Metric(
            "health/mixed_unrolls",
            "trajectories",
            "Trajectories in which more than one version acted.",
            "Always 0, or there is a defect.",
        ),
        Metric(
            "health/drift",
            "nats",
            "Largest difference of log-probabilities at the last drift check.",
            "Grows with rounding only; bfloat16 reaches 0.06.",
        ),
        Metric(
            "health/drift_alarms",
            "alarms",
            "Drift checks beyond the tolerance.",
            "Above 0: the log of the learner names the layer.",
        ),
        Metric(
            "health/checkpoint_update",
            "update",
            "Update of the newest checkpoint; -1: none.",
        ),
        Metric("memory/arena_mib", "MiB", "Shared memory of rings and parameters."),
        Metric(
            "memory/{role}_mib",
            "MiB",
            "Private memory of all processes of a role.",
            "Steady growth is a leak, mostly in an environment.",
        ),
        Metric("memory/device_mib", "MiB", "GPU memory of the learner, on a GPU."),
    ),
)

_LIVE = Section(
    "Live hyperparameters",
    (
        Metric(
            "live/{name}",
            "its own",
            "Value in force, from config, schedule or impala-ctl.",
        ),
    ),
)

SECTIONS = (
    _PROGRESS,
    _GAMES,
    _LOSS,
    _POLICY,
    _VTRACE,
    _LAG,
    _REPLAY,
    _TIME,
    _HEALTH,
    _LIVE,
)
METRICS = tuple(metric for section in SECTIONS for metric in section.metrics)
