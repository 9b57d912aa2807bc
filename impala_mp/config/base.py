"""The base configuration, with the unit of every field."""

from ml_collections import config_dict

from impala_mp.config import live_hyperparameters

# Fields that may change between two runs on the same workdir: none of them alters
# what one update computes (extending a run stretches its learning-rate schedule).
OPERATIONAL = (
    "total_agent_steps",
    "actors.count",
    "actors.threads",
    "checkpoint",
    "evaluation",
    "health",
    "inference",
    "learner.threads",
    "learner.device",
    "learner.micro_batches",
    "logging",
    "max_policy_lag",
    "replay.save",
    "shutdown",
)


# Fields for which 0, or "auto" on the command line, means: by a short calibration.
AUTOMATIC = ("actors.environments", "actors.count", "learner.micro_batches")


def get_base_config() -> config_dict.ConfigDict:
    """Every field there is; experiments override some."""
    config = config_dict.ConfigDict()
    config.seed = 0
    config.total_agent_steps = 1_000_000  # agent steps (decisions, not frames)
    config.algorithm = "vtrace"  # vtrace, or impact: PPO's surrogate, with a target
    config.unroll_length = 20  # T, agent steps
    config.batch_size = 32  # B, trajectories an update
    config.max_policy_lag = -1  # updates; what is older is discarded; -1: no limit

    config.environment = config_dict.ConfigDict()
    # A built-in, a Gymnasium id, "module:Id" or "module:factory"; several, separated
    # by commas, are tasks: actor i of N plays the i-th, modulo their number
    config.environment.id = "Catch"
    config.environment.kwargs = config_dict.ConfigDict()  # for its constructor
    config.environment.ignored = ()  # paths of Dict observations that nobody sees

    network = config.network = config_dict.ConfigDict()
    # auto, mlp, minatar, shallow, nature, deep, embedding, or "module:factory"
    network.torso = "auto"  # of the observation; auto: by the kind of each array
    network.encoders = config_dict.ConfigDict()  # of arrays in a Dict, by path
    network.joint_size = 256  # units of the layer over several encoders
    network.normalise_observations = False  # to mean 0, variance 1, by what was learned
    network.hidden_sizes = (64, 64)  # units a layer, of the mlp
    network.core = "none"  # none, lstm, gru, gtrxl, or "module:factory"
    network.core_size = 128  # units, of lstm, gru and gtrxl
    network.gtrxl = config_dict.ConfigDict()
    network.gtrxl.layers = 2
    network.gtrxl.heads = 4  # a layer; they share core_size
    network.gtrxl.window = 32  # rows back that a layer sees, and a state holds
    network.initial_std = 1.0  # of the normals that actions in a Box are drawn from
    network.last_reward = False  # feed the last reward (clipped to [-1, 1]) to the core
    network.last_action = False  # feed the last action to the core

    config.agent = config_dict.ConfigDict()
    # Path in the observation of what is allowed, one element a logit; "": everything
    config.agent.action_mask_key = ""

    actors = config.actors = config_dict.ConfigDict()
    actors.count = 2  # processes; 0 (auto): as many as a calibration says
    actors.environments = 16  # E, environments of one actor; 0: auto
    actors.slots = 3  # K, unrolls that one actor may be ahead of the learner
    actors.threads = 1  # torch threads of one actor
    actors.epsilon = 0.0  # probability of a uniform action, in [0, 1]
    actors.temperature = 1.0  # that logits are divided by, before that
    actors.epsilon_ladder = 0.0  # actor i of N: epsilon^(1 + this * i/(N-1)); Ape-X: 7

    actors.policy_delay = 0  # updates; parameters so old are published (for studies)

    vtrace = config.vtrace = config_dict.ConfigDict()
    vtrace.clip_rho_threshold = 1.0  # ratio; inf: none
    vtrace.clip_pg_rho_threshold = 1.0  # ratio; inf: none
    vtrace.clip_c_threshold = 1.0  # ratio, at most clip_rho_threshold
    vtrace.lambda_ = 1.0  # in [0, 1]
    vtrace.correction = True  # False: as if every action were on-policy (for studies)

    impact = config.impact = config_dict.ConfigDict()  # of algorithm=impact
    impact.clip_range = 0.3  # of the ratio around 1, in (0, 1]
    impact.ratio_threshold = 2.0  # of mu over the target's policy, at least 1
    impact.kl_cost = 0.0  # of KL(target's policy || learner's)

    target = config.target = config_dict.ConfigDict()  # network, of algorithm=impact
    target.period = 8  # updates between two moves of the target network
    target.polyak = 0.0  # share of itself that it keeps, in [0, 1); 0: a copy

    loss = config.loss = config_dict.ConfigDict()
    loss.discount_factor = 0.99  # an agent step, in [0, 1]
    loss.baseline_cost = 0.5
    loss.entropy_cost = 0.01
    loss.reduction = "sum"  # sum or mean, over T and B
    loss.reward_clipping = "none"  # none, abs_one or soft_asymmetric
    loss.baseline = "squared"  # squared or huber
    loss.huber_delta = 1.0  # error where huber becomes linear; with PopArt in sigmas
    loss.popart = False  # learn values at unit scale, whatever that of the rewards
    loss.popart_beta = 3e-4  # step size of its statistics, in (0, 1]

    optimizer = config.optimizer = config_dict.ConfigDict()
    optimizer.name = "adam"  # adam, rmsprop_tensorflow (the paper's) or rmsprop_torch
    optimizer.learning_rate = 1e-3
    optimizer.schedule = "linear"  # linear to 0 over total_agent_steps, or constant
    optimizer.decay = 0.999  # of the mean square, in [0, 1]: adam's beta2
    optimizer.momentum = 0.9  # in [0, 1]: adam's beta1
    optimizer.epsilon = 1e-5  # inside the root for rmsprop_tensorflow, else outside
    optimizer.clip_norm = 40.0  # global gradient norm; 0: no clipping

    # Of live values over agent steps, such as "linear(1, 0.1, 1e6)" (the others are in
    # schedules.KINDS); "": what the field of that name says (learning_rate_factor: 1).
    config.schedules = config_dict.ConfigDict(
        dict.fromkeys(live_hyperparameters.NAMES, "")
    )

    learner = config.learner = config_dict.ConfigDict()
    learner.device = "cpu"  # cpu, cuda or cuda:N
    learner.precision = "float32"  # or bfloat16: the network; V-trace, losses float32
    learner.cuda_graph = False  # replay the whole update as one graph; CUDA only
    learner.threads = 0  # torch threads; 0: the cores that the actors leave, at least 1
    learner.passes = 1  # optimizer steps, each over the whole batch, an update
    # Parts of a batch; same update, less memory; 0 (auto): as many as are the fastest.
    learner.micro_batches = 1

    replay = config.replay = config_dict.ConfigDict()
    replay.ratio = 0.0  # share of a batch that is replayed, in [0, 1); 0: no replay
    replay.memory_mib = 256.0  # of the learner's memory; what fits is the capacity
    replay.eviction = "fifo"  # of the oldest, or priority: of the lowest priority
    replay.priority_exponent = 0.0  # alpha: draws as priority ** alpha; 0: uniform
    replay.priority_eta = 0.9  # priority: eta * max + (1 - eta) * mean of |TD error|
    replay.importance_exponent = 0.4  # beta at first, linear to 1 at total_agent_steps
    replay.burn_in = 0  # first rows of a replayed trajectory that only make the state
    # Of KL(recorded || policy), replayed; CLEAR: 0.01. What is recorded is the policy
    # as it acted, epsilon and temperature included: cloning keeps some of that.
    replay.clear_policy_cost = 0.0
    replay.clear_value_cost = 0.0  # of (V - recorded V)^2, replayed; CLEAR: 0.005
    # Nats of KL(policy || recorded); what is replayed beyond is not learned; 0: none.
    replay.trust_region = 0.0
    # Into checkpoints; without, a resumed run's replay is empty. Learning pauses for 3
    # to 10 s a GiB, and half of shutdown.deadline_secs must be enough for the last one.
    replay.save = False

    inference = config.inference = config_dict.ConfigDict()
    inference.mode = "actor"  # each actor infers for itself; or server: one for all
    inference.device = "cpu"  # of the server: cpu, cuda or cuda:N
    inference.threads = 1  # torch threads of the server

    evaluation = config.evaluation = config_dict.ConfigDict()
    evaluation.interval_secs = 0.0  # between evaluations during training; 0: none
    evaluation.episodes = 100  # of one evaluation, and of the final one
    evaluation.environments = 10  # copies that play them
    evaluation.max_steps = 108_000  # agent steps of one game; a longer one is left out
    evaluation.greedy = False  # the likeliest action instead of a sample

    checkpoint = config.checkpoint = config_dict.ConfigDict()
    checkpoint.interval_secs = 60.0  # between checkpoints
    checkpoint.keep_last = 3  # newest checkpoints kept
    checkpoint.keep_every = 0  # and every n-th for ever; 0: none

    health = config.health = config_dict.ConfigDict()
    health.start_secs = 120.0  # a process may take to its first sign of life
    health.reset_secs = 120.0  # an environment's first reset may take
    health.slow_secs = 15.0  # of silence, after which a running process is called slow
    health.hang_secs = 60.0  # a running or waiting process may be silent; then it ends
    health.backoff_secs = 0.1  # before a restart; doubles in a crash loop
    health.max_backoff_secs = 30.0  # longest wait before a restart
    health.min_actors = 1  # the run goes on with; below that it stops
    health.max_failed_starts = 3  # in a row, of one process; then the run stops
    health.max_restarts = config_dict.ConfigDict()  # of one process within the window
    health.max_restarts.actor = 100  # then the run goes on without it
    health.max_restarts.learner = 20  # then the run stops; likewise the others
    health.max_restarts.inference = 100
    health.max_restarts.evaluator = 100
    health.window_secs = 600.0  # over which restarts are counted
    health.max_skipped_updates = 10  # in a row, as not finite; then the run stops
    health.max_crash_files = 5  # of skipped updates, kept under crashes/
    health.drift_interval = 1000  # updates between checks of a trajectory; 0: none
    health.checksums = False  # verify every fetch of parameters by a checksum

    config.logging = config_dict.ConfigDict()
    config.logging.interval_secs = 1.0  # between records of metrics

    config.shutdown = config_dict.ConfigDict()
    config.shutdown.deadline_secs = 15.0  # from the request to stop to SIGKILL

    config.runtime = config_dict.ConfigDict()
    config.runtime.mode = "processes"  # or lockstep: one process, deterministic
    config.lock()
    config.environment.kwargs.unlock()  # takes any name
    network.encoders.unlock()
    return config
