"""Rows of the table of metrics: policy lag, replay, time, health."""

from impala_mp.monitoring import metric_table

_Metric = metric_table.Metric

SECTIONS = (
    metric_table.Section(
        "Policy lag",
        (
            _Metric(
                "lag/mean",
                "updates",
                "Mean policy lag of the learned transitions.",
                "About the number of batches that the rings hold.",
                "config.actors.slots, config.max_policy_lag",
            ),
            _Metric(
                "lag/max",
                "updates",
                "Largest policy lag.",
                "Within a few updates of the mean.",
                "config.max_policy_lag",
            ),
            _Metric("lag/p50", "updates", "Median policy lag."),
            _Metric("lag/p95", "updates", "95th percentile of the policy lag."),
            _Metric(
                "lag/histogram",
                "transitions",
                "Transitions by policy lag, in fixed buckets; a histogram in"
                " TensorBoard.",
                "Lower bounds of the buckets: 0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32,"
                " 48, 64.",
            ),
            _Metric("lag/age_mean_secs", "s", "Mean time from commit to learning."),
            _Metric("lag/age_max_secs", "s", "Longest time from commit to learning."),
        ),
    ),
    metric_table.Section(
        "Replay",
        (
            _Metric("replay/size", "trajectories", "Trajectories that can be drawn."),
            _Metric("replay/priority_mean", "priority", "Mean priority of these."),
            _Metric(
                "replay/age_mean_updates",
                "updates",
                "Mean age of the drawn trajectories.",
                "Below a few hundred.",
                "Large, old data is learned: lower config.replay.memory_mib.",
            ),
            _Metric(
                "replay/never_drawn_share",
                "share",
                "Evicted trajectories that were never drawn.",
                "Near 0.",
                "High: raise config.replay.reuse or ratio, or"
                " config.replay.memory_mib.",
            ),
            _Metric(
                "replay/reuse",
                "times",
                "Times that a trajectory was learned, on average since the start.",
                "That of config.replay.reuse.",
            ),
            _Metric(
                "replay/weight_mean",
                "ratio",
                "Mean importance weight of the drawn.",
            ),
            _Metric(
                "replay/dropped_share",
                "share",
                "Replayed transitions that the trust region leaves out.",
                "Below 0.5.",
                "Near 1 replay contributes nothing: raise config.replay.trust_region.",
            ),
        ),
    ),
    metric_table.Section(
        "Population",
        (
            _Metric(
                "population/copies",
                "copies",
                "Times that a member has copied another.",
            ),
            _Metric(
                "population/order",
                "round",
                "Round of a member's last copy; 0 without one.",
            ),
            _Metric(
                "population/score",
                "return",
                "Mean return of a member at its last round: of at most 100 games since"
                " its last copy, NaN below 20.",
                "A number at each round.",
                "NaN: raise config.population.interval.",
            ),
        ),
    ),
    metric_table.Section(
        "Time",
        (
            _Metric(
                "time/learner_wait",
                "share",
                "Learner's time spent waiting for data; of several processes, that of"
                " the busiest.",
                "Near 0, if the learner is to be the limit.",
                "High: the actors are the limit; add cores or actors.",
            ),
            _Metric(
                "time/learner_batch",
                "share",
                "Learner's time spent copying slots.",
            ),
            _Metric("time/learner_update", "share", "Learner's time spent on updates."),
            _Metric(
                "time/learner_publish",
                "share",
                "Learner's time spent publishing.",
            ),
            _Metric(
                "ranks/waited_share",
                "share",
                "Time without a batch of the learner rank that waits most.",
                "Like that of the others.",
                "High: its actors are slower; see ranks/last and logs/.",
            ),
            _Metric("ranks/last", "rank", "Learner rank that waits most."),
            _Metric("time/actor_environment", "share", "Actors' time in environments."),
            _Metric("time/actor_inference", "share", "Actors' time in inference."),
            _Metric(
                "time/actor_wait",
                "share",
                "Actors' time spent waiting for a free slot.",
                "Near 0, if the environments are to be the limit.",
                "High: the learner is the limit; see learner.threads, passes and"
                " the network.",
            ),
            _Metric(
                "time/environment_step_ms",
                "ms",
                "Actor time in environments for each agent step.",
            ),
            _Metric(
                "time/inference_step_ms",
                "ms",
                "Actor time in inference for each agent step.",
            ),
        ),
    ),
    metric_table.Section(
        "Health",
        (
            _Metric(
                "health/run",
                "number",
                "Earlier runs in this folder; it grows by 1 with each resume.",
            ),
            _Metric(
                "health/processes_alive",
                "processes",
                "Processes that live.",
                "Equals processes_total.",
                "See impala-status DIR.",
            ),
            _Metric(
                "health/processes_total",
                "processes",
                "Processes that should live.",
            ),
            _Metric(
                "health/restarts",
                "restarts",
                "Restarts since the first run.",
                "0.",
                "Above 0: see impala-status DIR and the log of the process.",
            ),
            _Metric(
                "health/committed",
                "trajectories",
                "Trajectories that actors committed since the first run.",
                "Equals learned + discarded + in flight, always.",
            ),
            _Metric(
                "health/learned",
                "trajectories",
                "Trajectories learned; with replay.reuse, those that have entered the"
                " replay.",
            ),
            _Metric(
                "health/discarded",
                "trajectories",
                "Trajectories discarded: too old, lost with a learner or a stop, or of"
                " a finished policy.",
            ),
            _Metric(
                "health/in_flight",
                "trajectories",
                "Trajectories in the rings, or taken and not yet learned.",
            ),
            _Metric(
                "health/updates_skipped",
                "updates",
                "Updates skipped because loss or gradient was not finite.",
                "0.",
                "Above 0: see crashes/ and impala-diagnose.",
            ),
            _Metric(
                "health/skipped_share",
                "share",
                "Updates skipped since the record before.",
            ),
            _Metric(
                "health/bad_data",
                "unrolls",
                "Unrolls discarded because of NaN, wrong shapes or wrong dtypes.",
                "0.",
                "Above 0: run impala-train --check.",
            ),
            _Metric(
                "health/observations_outside",
                "observations",
                "Observations outside their space, which were used.",
                "0.",
                "Above 0: correct the bounds of the observation space.",
            ),
            _Metric(
                "health/torn_reads_retried",
                "fetches",
                "Fetches of parameters that were repeated.",
                "Any; they are harmless.",
                "Many mean that updates are short and parameters large.",
            ),
            _Metric(
                "health/mixed_unrolls",
                "trajectories",
                "Trajectories in which more than one version acted.",
                "0, or there is a defect.",
                "Report it, with the run.",
            ),
            _Metric(
                "health/rank_mismatches",
                "restarts",
                "Restarts of all learner ranks, because one was not like the others.",
                "0, or there is a defect.",
                "Report it, with the log of the learner.",
            ),
            _Metric(
                "health/drift",
                "nats",
                "Largest difference of log-probabilities at the last drift check.",
                "Below 1e-4; bfloat16 reaches 0.06.",
            ),
            _Metric(
                "health/drift_alarms",
                "alarms",
                "Drift checks beyond the tolerance.",
                "0.",
                "Above 0: the log of the learner names the layer.",
            ),
            _Metric(
                "health/checkpoint_update",
                "update",
                "Update of the newest checkpoint; -1: none.",
            ),
            _Metric(
                "memory/arena_mib",
                "MiB",
                "Shared memory of rings and parameters.",
            ),
            _Metric(
                "memory/{role}_mib",
                "MiB",
                "Private memory of all processes of a role.",
                "Steady.",
                "Growth is a leak, mostly in an environment.",
            ),
            _Metric("memory/device_mib", "MiB", "GPU memory of the learner, on a GPU."),
        ),
    ),
    metric_table.Section(
        "Actor hosts",
        (
            _Metric("hosts/seats", "hosts", "Actor hosts that the run may have."),
            _Metric(
                "hosts/alive",
                "hosts",
                "Actor hosts that act.",
                "Equals hosts/seats, once there are as many nodes.",
                "See impala-status DIR, and `ray status` for free CPUs.",
            ),
            _Metric(
                "hosts/restarts",
                "restarts",
                "Deaths of actor hosts since the receiver began.",
                "0, or few where nodes are preempted.",
            ),
            _Metric(
                "hosts/bad_data",
                "unrolls",
                "Unrolls discarded on the hosts because of bad data.",
                "0.",
                "Above 0: run impala-train --check.",
            ),
            _Metric("hosts/steps_per_sec_min", "agent steps/s", "Of the slowest host."),
            _Metric("hosts/steps_per_sec_median", "agent steps/s", "Of a median host."),
            _Metric("hosts/steps_per_sec_max", "agent steps/s", "Of the fastest host."),
            _Metric(
                "hosts/age_p99_secs",
                "s",
                "99th percentile of the age of arriving slots, of the worst host.",
                "Below 0.05, where the learner keeps up.",
            ),
            _Metric(
                "hosts/lag_max",
                "updates",
                "How far the parameters of the worst host are behind.",
                "About updates a second times config.cluster.publish_secs.",
                "config.cluster.publish_secs",
            ),
            _Metric("hosts/wire_mb_per_sec", "MB/s", "Slots on the network."),
            _Metric(
                "hosts/compression",
                "times",
                "How much smaller slots are on the network, at the median host.",
                "",
                "config.cluster.compression",
            ),
            _Metric(
                "hosts/reported",
                "trajectories",
                "Trajectories that hosts have announced in this run.",
                "Equals arrived + on_the_way + lost, always.",
            ),
            _Metric(
                "hosts/arrived",
                "trajectories",
                "Trajectories that have come into the rings here.",
            ),
            _Metric(
                "hosts/on_the_way",
                "trajectories",
                "Trajectories announced by a live host, and not arrived.",
            ),
            _Metric(
                "hosts/lost",
                "trajectories",
                "Trajectories announced by a host that has died since.",
                "0, or a few for each death.",
            ),
        ),
    ),
    metric_table.Section(
        "Live hyperparameters",
        (
            _Metric(
                "live/{name}",
                "its own",
                "Value in force, from config, schedule or impala-ctl.",
            ),
        ),
    ),
)
