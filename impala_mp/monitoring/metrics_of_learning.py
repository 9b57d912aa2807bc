"""Rows of the table of metrics: progress, games, losses, policy and values."""

from impala_mp.monitoring import metric_table

_Metric = metric_table.Metric

SECTIONS = (
    metric_table.Section(
        "Progress",
        (
            _Metric(
                "agent_steps",
                "steps",
                "Agent steps learned, without replayed ones.",
                "Grows to config.total_agent_steps.",
            ),
            _Metric(
                "env_frames",
                "frames",
                "Emulator frames of these agent steps.",
                "Compare it with papers that count frames.",
            ),
            _Metric("updates", "updates", "Batches learned."),
            _Metric("time_secs", "s", "Wall-clock time of learning, over all runs."),
            _Metric(
                "throughput/agent_steps_per_sec",
                "steps/s",
                "Agent steps learned a second since the record before.",
                "Steady.",
                "See the bottleneck sentence of the display.",
            ),
            _Metric(
                "throughput/env_frames_per_sec",
                "frames/s",
                "The same in emulator frames.",
            ),
            _Metric("throughput/updates_per_sec", "updates/s", "Updates a second."),
        ),
    ),
    metric_table.Section(
        "Games",
        (
            _Metric(
                "episode/return_mean",
                "return",
                "Mean return of the last 100 full games that were learned.",
                "Rises; exploration is included.",
                "See impala-report for what keeps it from rising.",
            ),
            _Metric("episode/return_min", "return", "Lowest of these returns."),
            _Metric("episode/return_max", "return", "Highest of these returns."),
            _Metric(
                "episode/length_mean",
                "steps",
                "Mean length of these games.",
                "Changes with the return.",
                "Constant at the time limit: the task may need a longer one.",
            ),
            _Metric(
                "episode/count",
                "games",
                "Full games learned since the first run.",
            ),
            _Metric(
                "episode/return_mean/{task}",
                "return",
                "Mean return of the last 100 full games of one task or player.",
                "Rises; written with several tasks, or up to 8 players.",
            ),
            _Metric(
                "env/{number}",
                "its own",
                "Mean of a number of `info` at the end of the last 100 games that"
                " have it.",
                "`is_success` is env/success_rate, from 0 to 1.",
            ),
            _Metric("env/{number}/min", "its own", "Lowest of these numbers."),
            _Metric("env/{number}/max", "its own", "Highest of these numbers."),
            _Metric(
                "env/{number}/{task}",
                "its own",
                "Mean of the number in one task.",
            ),
            _Metric(
                "episode/count/{task}",
                "games",
                "Full games learned, of one task.",
            ),
            _Metric(
                "evaluation/return_mean",
                "return",
                "Mean return of an evaluation with fixed parameters.",
                "Near episode/return_mean, or above it.",
                "config.evaluation.greedy, if it is far below.",
            ),
            _Metric(
                "evaluation/return_std",
                "return",
                "Standard deviation of these returns.",
            ),
            _Metric("evaluation/return_min", "return", "Lowest of these returns."),
            _Metric("evaluation/return_max", "return", "Highest of these returns."),
            _Metric("evaluation/episodes", "games", "Games of this evaluation."),
            _Metric(
                "evaluation/return_low",
                "return",
                "Lower end of the 95 % interval of the mean (Student's t).",
            ),
            _Metric("evaluation/return_high", "return", "Upper end of this interval."),
            _Metric(
                "evaluation/agent_steps",
                "steps",
                "Agent steps of the policy that played.",
            ),
            _Metric(
                "evaluation/return_mean/{task}",
                "return",
                "Mean return of an evaluation of one task.",
            ),
        ),
    ),
    metric_table.Section(
        "League",
        (
            _Metric("league/size", "snapshots", "Snapshots that play."),
            _Metric("league/newest", "version", "Version of the newest snapshot."),
            _Metric(
                "league/elo",
                "points",
                "Elo of the policy; the first snapshot has 0.",
                "Rises; exploration is included.",
                "Flat: a lower config.league.every, or another config.league.draw.",
            ),
            _Metric("league/games", "games", "Games learned against snapshots."),
            _Metric(
                "league/win_rate",
                "share",
                "Mean over the snapshots of the last games won against each; a draw"
                " counts 1/2.",
                "Above 0.5.",
            ),
            _Metric("league/win_rate_min", "share", "Lowest of these win rates."),
            _Metric("league/win_rate_newest", "share", "That of the newest snapshot."),
            _Metric("league/win_rate_oldest", "share", "That of the oldest snapshot."),
        ),
    ),
    metric_table.Section(
        "Loss",
        (
            _Metric("loss/total", "loss", "Sum of all terms, as it is differentiated."),
            _Metric(
                "loss/policy_gradient",
                "loss",
                "Term of the policy: IMPALA's gradient or IMPACT's surrogate.",
            ),
            _Metric(
                "loss/baseline",
                "loss",
                "Term of the values, times config.loss.baseline_cost.",
                "Within ten times the policy term.",
                "A larger one drowns the policy: config.loss.popart=True.",
            ),
            _Metric(
                "loss/entropy",
                "loss",
                "Entropy of the policy, times minus the entropy cost.",
                "Minus the entropy cost times policy/entropy.",
                "config.loss.entropy_cost",
            ),
            _Metric(
                "loss/td",
                "loss",
                "DQN: loss of the errors of action values from their targets.",
                "Falls, or stays where rewards grow.",
                "Grows without end: config.loss.baseline=huber,"
                " config.network.layer_norm=True, or a larger config.target.period.",
            ),
            _Metric(
                "loss/quantile",
                "loss",
                "IQN: quantile Huber loss, the sum over the quantiles of a value.",
                "Falls, and stays above 0 where returns vary.",
                "Grows without end: config.network.layer_norm=True, config.loss.popart,"
                " or a larger config.target.period.",
            ),
            _Metric(
                "loss/kl",
                "loss",
                "IMPACT: config.impact.kl_cost times KL(target policy, policy).",
                "",
                "config.impact.kl_cost",
            ),
            _Metric(
                "loss/policy_cloning",
                "loss",
                "Replay: CLEAR's term that holds on to the recorded policy.",
            ),
            _Metric(
                "loss/value_cloning",
                "loss",
                "Replay: CLEAR's term that holds on to the recorded values.",
            ),
            _Metric(
                "loss/gradient_norm",
                "norm",
                "Global norm of the gradient, before clipping.",
                "Below config.optimizer.clip_norm for most updates.",
                "Always above: lower config.optimizer.learning_rate, or raise"
                " clip_norm.",
            ),
            _Metric(
                "gradient_norm/{part}",
                "norm",
                "Norm of the gradient of one part: torso, core, value_torso (with a"
                " separate critic), policy or baseline.",
                "Of one order; 0: the network has no such part.",
                "One part dominates: config.loss.baseline_cost, or PopArt.",
            ),
            _Metric(
                "loss/learning_rate",
                "rate",
                "Learning rate in force.",
                "As in config.optimizer.schedule.",
                "config.optimizer.learning_rate, or impala-ctl set"
                " learning_rate_factor.",
            ),
        ),
    ),
    metric_table.Section(
        "Policy and values",
        (
            _Metric(
                "policy/entropy",
                "nats",
                "Mean entropy of the policy; of n actions it is at most ln n.",
                "Falls slowly from ln n for n actions.",
                "Near 0 early: raise config.loss.entropy_cost. Never falls: lower it.",
            ),
            _Metric(
                "policy/actions",
                "transitions",
                "Transitions by action taken, of up to 32; a histogram in TensorBoard.",
                "Several actions.",
                "One action alone: raise config.loss.entropy_cost.",
            ),
            _Metric(
                "value/mean",
                "return",
                "Mean value V of the batch, in units of reward.",
                "Near the discounted return that is left from a typical state.",
            ),
            _Metric(
                "value/explained_variance",
                "share",
                "1 - variance of (target - value) / variance of the targets of values;"
                " -1 at least.",
                "Rises towards 1.",
                "At or below 0 for long: config.loss.popart,"
                " config.loss.baseline_cost, or a larger network.",
            ),
            _Metric(
                "advantage/mean",
                "return",
                "Mean policy-gradient advantage.",
                "Near 0.",
            ),
            _Metric(
                "advantage/std",
                "return",
                "Standard deviation of the advantages.",
                "Above 0.",
                "Near 0, good actions do not differ from bad ones: see the reward"
                " function.",
            ),
        ),
    ),
    metric_table.Section(
        "Action values",
        (
            _Metric(
                "q/mean",
                "return",
                "DQN, IQN: mean value of the actions taken, in units of reward.",
                "Near the discounted return that is left from a typical state.",
            ),
            _Metric(
                "q/target_mean",
                "return",
                "DQN, IQN: mean of the targets of these values.",
                "Near q/mean.",
                "Far from it for long: config.optimizer.learning_rate, or a smaller"
                " config.target.period.",
            ),
            _Metric(
                "q/gap",
                "return",
                "DQN, IQN: value of the best action minus that of the second.",
                "Above 0.",
                "Near 0, actions make no difference: see the reward function, and"
                " config.loss.discount_factor.",
            ),
            _Metric(
                "q/overestimation",
                "return",
                "DQN, IQN: value minus discounted return, where an episode terminates"
                " within the trajectory; 0 without one.",
                "Near 0, and below 0 while epsilon explores less than before.",
                "Far above 0: config.dqn.double=True, config.network.layer_norm=True,"
                " or a larger config.target.period.",
            ),
        ),
    ),
    metric_table.Section(
        "Importance weights",
        (
            _Metric(
                "vtrace/rho_mean",
                "ratio",
                "Mean of the unclipped ratio pi/mu over the decisions.",
                "Near 1: the data is almost on-policy.",
                "Far from it: fewer actors.slots, or max_policy_lag.",
            ),
            _Metric(
                "vtrace/rho_clipped",
                "share",
                "Decisions whose ratio is above clip_rho_threshold.",
                "Below 0.3.",
                "Higher: reduce the policy lag or the learning rate.",
            ),
            _Metric(
                "vtrace/c_clipped",
                "share",
                "Decisions whose ratio is above clip_c_threshold.",
                "Below 0.3.",
                "As for vtrace/rho_clipped.",
            ),
            _Metric(
                "vtrace/effective_sample_size",
                "share",
                "(sum of ratios)^2 / sum of squared ratios, over the number of"
                " decisions.",
                "Above 0.5.",
                "Low: few transitions carry the update; reduce the policy lag.",
            ),
            _Metric(
                "vtrace/kl",
                "nats",
                "Mean KL(behaviour policy, learner's policy).",
                "Below 0.1 nats.",
                "Higher: lower config.optimizer.learning_rate, or reduce the"
                " policy lag.",
            ),
            _Metric(
                "impact/ratio_clipped",
                "share",
                "IMPACT: decisions whose surrogate ratio leaves the clip range.",
                "Below 0.3.",
                "Higher: fewer config.learner.passes, or a lower learning rate.",
            ),
            _Metric(
                "impact/kl_target",
                "nats",
                "IMPACT: mean KL(target policy, learner's policy).",
                "Below 0.05 nats.",
                "Rises over passes: config.impact.kl_cost, or move the target sooner.",
            ),
            _Metric("popart/mean", "return", "PopArt: running mean of value targets."),
            _Metric(
                "popart/scale",
                "return",
                "PopArt: running deviation of value targets, from 1e-4 to 1e15.",
                "Between the limits.",
                "At a limit values are not at unit scale: multiply the rewards.",
            ),
            _Metric("popart/mean/{task}", "return", "PopArt: the mean of one task."),
            _Metric(
                "popart/scale/{task}",
                "return",
                "PopArt: the deviation of one task.",
            ),
        ),
    ),
)
