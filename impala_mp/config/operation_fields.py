"""Fields of the config: inference, evaluation, checkpoints, health, ends of a run."""

from impala_mp.config import derived, schema

_field, _group = schema.field, schema.group

_MAX_HOSTS = 500  # one process fetches from all of them
_MILLION = 1_000_000  # at most, where seconds are waited for; elsewhere inf is never

# fmt: off
TABLE = (  # name, default, meaning with unit, rules, flags
    _group("inference", "Where actions are inferred.",
        _field("mode", "actor", "actor: each actor for itself; server: one process for"
            " all actors", one_of=("actor", "server")),
        _field("device", "cpu", "torch device of the server: cpu, cuda, cuda:N or"
            " auto, as for the learner"),
        _field("precision", "float32", "number format of the network where it acts in"
            " training; auto, as for the learner",
            one_of=("float32", "bfloat16", "auto")),
        _field("threads", 1, "torch threads of the server", at_least=1),
        operational=True,
    ),
    _group("evaluation", "Evaluation during training and at its end.",
        _field("during_training", True, "evaluate in a separate process"),
        _field("interval_steps", 0, "agent steps between evaluations during training;"
            " 0: a twentieth of the run, and at most 1 % of the cores", at_least=0),
        _field("training_episodes", 20, "episodes of an evaluation during training",
            at_least=1),
        _field("episodes", 100, "episodes of the final evaluation", at_least=1),
        _field("environments", 10, "copies that play them", at_least=1),
        _field("max_steps", 108_000, "agent steps of one game; a longer game is left"
            " out", at_least=1),
        _field("greedy", True, "act by the likeliest action, not by a sample"),
        _field("film", True, "film a game of the final policy, where the environment"
            " draws pictures"),
        _field("films", False, "film a game at each evaluation, to films/STEPS.gif"),
        _field("kwargs", {}, "arguments of the environment in evaluations, in place of"
            " those of training"),
        operational=True,
    ),
    _group("checkpoint", "Checkpoints.",
        _field("interval_secs", 60.0, "time between checkpoints; the first of a run"
            " comes after 10 s at most", at_least=0),
        _field("keep_last", 3, "newest checkpoints that are kept", at_least=1),
        _field("keep_every", 0, "every n-th checkpoint is kept for ever; 0: none",
            at_least=0),
        operational=True,
    ),
    _group("health", "Supervision: deadlines, restarts and checks.",
        _field("start_secs", 120.0, "time that a process has for its first sign of"
            " life",
            above=0),
        _field("reset_secs", 120.0, "time that an environment's first reset may"
            " take",
            above=0),
        _field("slow_secs", 15.0, "silence after which a running process is called"
            " slow",
            above=0),
        _field("hang_secs", 60.0, "silence after which a running or waiting process is"
            " ended", above=0),
        _field("backoff_secs", 0.1, "wait before a restart; doubles in a crash loop",
            above=0, at_most=_MILLION),
        _field("max_backoff_secs", 30.0, "longest wait before a restart",
            above=0, at_most=_MILLION),
        _field("min_actors", 1, "live actors; with fewer the run stops", at_least=0),
        _field("max_failed_starts", 3, "failed starts in a row of one process that has"
            " never run; then the run stops", at_least=0),
        _field("max_deaths_without_progress", 8, "deaths in a row without a finished"
            " unroll, update or evaluation, of one process or of all actors together;"
            " then the run stops, or continues without the actor", at_least=1),
        _field("max_restarts.actor", 100, "restarts of one actor within window_secs;"
            " then the run continues without it", at_least=0),
        _field("max_restarts.learner", 20, "restarts within window_secs; then the run"
            " stops", at_least=0),
        _field("max_restarts.inference", 100, "restarts within window_secs; then the"
            " run stops", at_least=0),
        _field("max_restarts.evaluator", 100, "restarts within window_secs; then the"
            " run has no evaluations", at_least=0),
        _field("max_restarts.receiver", 100, "restarts of the process that fetches from"
            " actor hosts, within window_secs; then the run stops", at_least=0),
        _field("max_restarts.host", 20, "restarts of one actor host within window_secs;"
            " then the run continues without it", at_least=0),
        _field("min_hosts", 0, "actor hosts that are not given up; with fewer the run"
            " stops", at_least=0),
        _field("window_secs", 600.0, "window over which restarts are counted; waits"
            " before restarts are left out", above=0),
        _field("max_skipped_updates", 10, "updates skipped in a row, as not finite;"
            " then the run stops", at_least=1),
        _field("max_crash_files", 5, "files of skipped updates that are kept in"
            " crashes/", at_least=0),
        _field("drift_interval", 1000, "updates between checks of a trajectory; 0:"
            " none", at_least=0),
        _field("checksums", False, "verify every fetch of parameters by a checksum"),
        operational=True,
    ),
    _group("stop", "Ends of a run before total_agent_steps.",
        _field("target_return", "", "stop at this mean return of the last 100 games;"
            " empty: never", schema.number_or_empty()),
        _field("no_progress_steps", 0, "stop after so many agent steps without a higher"
            " mean return of the last 100 games; 0: never", at_least=0),
        _field("after_secs", 0.0, "stop after this time of training, over all runs; 0:"
            " never", at_least=0, finite=True),
        operational=True,
    ),
    _group("logging", "Metrics.",
        _field("interval_secs", 1.0, "time between records of metrics, at most; there"
            " are at least 200 in a run", above=0, at_most=_MILLION),
        _field("episodes", True, "write each full game to episodes.csv"),
        operational=True,
    ),
    _group("shutdown", "The end of a run.",
        _field("deadline_secs", 15.0, "time from the request to stop to SIGKILL",
            above=0, at_most=_MILLION),
        operational=True,
    ),
    _group("cluster", "Actor hosts: more actors on other nodes of a Ray cluster.",
        _field("address", "", "of Ray: auto, or host:port; empty: no cluster"),
        _field("hosts", 0, "actor hosts, at most; those that no node has room for are"
            " waited for", at_least=0, at_most=_MAX_HOSTS),
        _field("cores", 0, "CPUs of Ray that a host takes; 0: those of the smallest"
            " node", at_least=0),
        _field("actors", 0, "actors of a host; 0: cluster.cores, or as many as here",
            at_least=0, at_most=derived.MAX_ACTORS),
        _field("slots", 8, "slots of a host's ring at the learner", at_least=1),
        _field("compression", "auto", "of slots on the network; auto: zstd if the first"
            " ones get 1.3 times smaller", one_of=("auto", "none", "zstd")),
        _field("publish_secs", 0.2, "time between two publications to a host, at least",
            at_least=0, at_most=_MILLION),
        _field("orphan_secs", 60.0, "time without a question from the learner's host,"
            " after which a host ends", at_least=5, at_most=_MILLION),
        _field("insecure", False, "allow an address that is not of this machine without"
            " Ray's token"),
        operational=True,
    ),
    _group("runtime", "How the parts of a run are put into processes.",
        _field("mode", "processes", "lockstep: in one process, deterministic",
            one_of=("processes", "lockstep")),
    ),
)
# fmt: on
