"""Fields of the config: environment, network, actors, losses, learner and replay."""

import math

from impala_mp.config import derived, league, schema

_field, _group = schema.field, schema.group

_MILLION = 1_000_000
_COST = schema.number("finite and at least 0", lambda x: 0.0 <= x < math.inf)
_SIZES = schema.Rule(
    f"whole numbers from 1 to {_MILLION:,}",
    lambda sizes: all(isinstance(x, int) and 1 <= x <= _MILLION for x in sizes),
    example=', as in config.network.hidden_sizes="(64,64)"',
)
_CORE = schema.names(("none", "lstm", "gru", "gtrxl"), custom=True)
_LAG = schema.number("at least 0, or -1 for no limit", lambda lag: lag >= -1)


def _below_one(reason: str) -> schema.Rule:
    return schema.number("at least 0 and below 1", lambda x: 0.0 <= x < 1.0, reason)


# fmt: off
TABLE = (  # name, default, meaning with unit, rules, flags
    _group("", "The run as a whole.",
        _field("seed", 0, "seed of all random numbers", at_least=0),
        _field("total_agent_steps", 300_000, "agent steps (decisions, not frames)",
            at_least=1, operational=True),
        _field("algorithm", "impact", "vtrace: IMPALA's actor-critic; impact: PPO's"
            " surrogate, with a target network; dqn: action values; iqn: quantiles of"
            " the returns of actions",
            one_of=("vtrace", "impact", "dqn", "iqn")),
        _field("unroll_length", 64, "T, agent steps of one unroll", at_least=1),
        _field("batch_size", 0, "B, trajectories of one update; 0 (auto): an unroll of"
            " each environment, at most 64", at_least=0, automatic=True),
        _field("policies", {}, "fields of single policies, by the policy's name"),
        _field("max_policy_lag", -1, "updates; older trajectories are discarded; -1: no"
            " limit; a learner on a GPU admits one update more, on its way to the"
            " actors", _LAG, operational=True),
    ),
    _group("environment", "The environment, or several as tasks.",
        _field("id", "Catch", "a built-in, a Gymnasium id, module:Id or module:factory;"
            " several, separated by commas, are tasks: actor i of N plays task i,"
            " modulo their number"),
        _field("kwargs", {}, "arguments of its constructor, by name"),
        _field("ignored", (), "paths of Dict observations that the network never sees"),
        _field("privileged", "", "path of the array in Dict observations that values"
            " see and the policy does not"),
        _field("tuples_are_players", False, "the entries of Tuple spaces are those of"
            " the players of a game"),
        _field("sharing", "all", "players that share a policy: all; kind: those whose"
            " names differ in the number at the end; each: none",
            one_of=("all", "kind", "each")),
        _field("policies", {}, "players by the name of their policy, such as"
            " 'agent_*'; several patterns are separated by commas"),
        _field("shows_player", False, "each player of a game sees which one it is"),
        _field("shows_state", False, "values also depend on the game's state()"),
    ),
    _group("network", "Encoders, core and heads.",
        _field("torso", "auto", "encoder of the observation: auto (by the kind of each"
            " array), mlp, minatar, shallow, nature, deep, embedding, or"
            " module:factory"),
        _field("encoders", {}, "encoders of arrays in a Dict, by path"),
        _field("joint_size", 0, "units of the layer over several encoders; 0: as many"
            " as the widest of them has, from 64 to 256", at_least=0, at_most=_MILLION),
        _field("image_layout", "auto", "place of the planes (channels) of pictures;"
            " auto: by their shape", one_of=("auto", "planes_last", "planes_first")),
        _field("normalise_observations", True, "normalise to mean 0 and variance 1,"
            " with statistics of all learned data; a custom torso takes them as they"
            " are"),
        _field("hidden_sizes", (64, 64), "units of each layer, in the mlp", _SIZES),
        _field("critic", "shared", "encoder of values: that of the policy, or a second"
            " one of its kind", one_of=("shared", "separate")),
        _field("layer_norm", False, "normalise the features of each row before each"
            " activation, in mlp, minatar, shallow and nature"),
        _field("dueling", False, "action values as a value and advantages; with"
            " algorithm=dqn"),
        _field("core", "none", "recurrent core", _CORE),
        _field("core_size", 128, "units, in lstm, gru and gtrxl",
            at_least=1, at_most=_MILLION),
        _field("gtrxl.layers", 2, "layers of gtrxl", at_least=1),
        _field("gtrxl.heads", 4, "heads of a layer; they share core_size", at_least=1),
        _field("gtrxl.window", 32, "rows back that a layer sees, and a state holds",
            at_least=1),
        _field("initial_std", 1.0, "first standard deviation of the normals that"
            " actions in a Box are drawn from", above=0, finite=True),
        _field("last_reward", False, "feed the last reward, clipped to [-1, 1], to the"
            " core"),
        _field("last_action", False, "feed the last action to the core"),
    ),
    _group("agent", "From the network's output to an action.",
        _field("action_mask_key", "", "path in the observation of the allowed actions,"
            " one element a logit; empty: all are allowed"),
    ),
    _group("actors", "The processes that act.",
        _field("environments", 8, "E, environments of one actor, of which a game"
            " counts as one per player; 0: auto",
            at_least=0, automatic=True),
        _field("count", 0, "processes; 0 (auto): chosen by calibration",
            at_least=0, at_most=derived.MAX_ACTORS, operational=True,
            automatic=True),
        _field("slots", 2, "K, unrolls that one actor may be ahead of the learner",
            at_least=1),
        _field("threads", 1, "torch threads of one actor", at_least=1,
            operational=True),
        _field("epsilon", 0.0, "probability of a uniform action", between=(0, 1),
            live=True, changeable=True),
        # Within these bounds the logits of any network stay finite after division.
        _field("temperature", 1.0, "divisor of the logits, before epsilon is applied",
            between=(0.001, 1000), live=True, changeable=True),
        _field("epsilon_ladder", 0.0, "actor i of N uses epsilon^(1 + this * i/(N-1));"
            " Ape-X: 7", at_least=0, finite=True, changeable=True),
        _field("ladder_over", "actors", "what has a place on the ladder: actors, or"
            " environments (e of actor i has the place i + N e of N E)",
            one_of=("actors", "environments"), changeable=True),
        _field("policy_delay", 0, "updates; parameters of this age are published (for"
            " studies)", at_least=0),
    ),
    _group("loss", "The loss, and the targets of values.",
        _field("discount_factor", 0.99, "discount per agent step", between=(0, 1)),
        _field("baseline_cost", 0.5, "weight of the baseline's loss",
            at_least=0, finite=True),
        _field("entropy_cost", 0.01, "weight of the policy's entropy", _COST,
            live=True),
        _field("reduction", "mean", "reduction of the loss over T and B",
            one_of=("sum", "mean")),
        _field("reward_clipping", "none", "clipping of the rewards that are learned",
            one_of=("none", "abs_one", "soft_asymmetric")),
        _field("baseline", "squared", "loss of the baseline's error",
            one_of=("squared", "huber")),
        _field("huber_delta", 1.0, "error where huber becomes linear; with PopArt in"
            " sigmas", above=0, finite=True),
        _field("popart", True, "learn values at unit scale; returns may vary by 1e-4"
            " to 1e15", fixed=True),
        _field("popart_beta", 3e-3, "step size of PopArt's statistics; at least 1/t in"
            " optimizer step t",
            above=0, between=(0, 1)),
        changeable=True,
    ),
    _group("optimizer", "The optimizer and its learning rate.",
        _field("name", "adam", "optimizer; rmsprop_tensorflow is the paper's",
            one_of=("adam", "rmsprop_tensorflow", "rmsprop_torch"), fixed=True),
        _field("learning_rate", 1e-3, "learning rate at the start of the run",
            above=0, finite=True),
        _field("learning_rate_factor", 1.0, "factor on optimizer.learning_rate", _COST,
            live=True, scheduled_only=True),
        _field("schedule", "linear", "of the learning rate; linear: to 0 over"
            " total_agent_steps",
            one_of=("linear", "constant")),
        _field("decay", 0.999, "decay of the mean square; adam's beta2",
            between=(0, 1)),
        _field("momentum", 0.9, "momentum; adam's beta1", between=(0, 1)),
        _field("epsilon", 1e-5, "inside the root for rmsprop_tensorflow, else outside",
            above=0, finite=True),
        _field("clip_norm", 0.5, "highest global gradient norm; 0: no clipping",
            at_least=0),
        changeable=True,
    ),
    _group("vtrace", "V-trace.",
        _field("clip_rho_threshold", 1.0, "upper limit of the ratio rho; inf: none",
            above=0, live=True),
        _field("clip_pg_rho_threshold", 1.0, "upper limit of rho in the policy"
            " gradient; inf: none", at_least=0, live=True),
        _field("clip_c_threshold", 1.0, "upper limit of the ratio c; at most"
            " clip_rho_threshold",
            at_least=0, live=True),
        _field("lambda_", 0.95, "decay of the trace", between=(0, 1)),
        _field("correction", True, "False: treat every action as on-policy (for"
            " studies)"),
        changeable=True,
    ),
    _group("impact", "Used with algorithm=impact.",
        _field("clip_range", 0.2, "range of the ratio around 1", above=0,
            between=(0, 1)),
        _field("ratio_threshold", 2.0, "upper limit of mu over the target's policy",
            at_least=1),
        _field("kl_cost", 0.3, "weight of KL(target's policy || learner's)",
            at_least=0, finite=True),
        _field("normalise_advantages", True, "divide advantages by their root mean"
            " square in the batch, task by task"),
        _field("centre_advantages", False, "first subtract their mean; keeps policies"
            " over a Box from narrowing"),
        changeable=True,
    ),
    _group("dqn", "Used with algorithm=dqn and iqn.",
        _field("returns", "n_step", "targets of action values: n_step; with dqn only,"
            " lambda (corrected for actions that are not greedy), peng (PQN's, not"
            " corrected) or retrace (traces end at such an action)",
            one_of=("n_step", "lambda", "peng", "retrace")),
        _field("n_step", 3, "rewards in a target, fewer at the end of a trajectory",
            at_least=1),
        _field("lambda_", 0.65, "decay of the traces", between=(0, 1)),
        _field("double", True, "the learner's network chooses the greedy action, and"
            " the target network values it"),
        _field("rescaling", "none", "scale of the values that are learned; hyperbolic:"
            " sign(x) (sqrt(|x| + 1) - 1) + x / 1000", one_of=("none", "hyperbolic"),
            fixed=True),
        changeable=True,
    ),
    _group("iqn", "Quantiles. Used with algorithm=iqn.",
        _field("fractions", "drawn", "where quantiles are learned; drawn (IQN): at"
            " fractions that each pass draws; fixed (QR-DQN): at the midpoints",
            one_of=("drawn", "fixed")),
        _field("quantiles", 8, "N, quantiles that are learned, and those of a target",
            at_least=1, at_most=10_000),
        _field("acting_quantiles", 32, "midpoints whose mean is the value of an action",
            at_least=1, at_most=10_000),
        _field("embedding", 64, "cosines that represent a fraction", at_least=1,
            at_most=10_000),
        _field("kappa", 1.0, "error where the loss becomes linear; with PopArt in"
            " sigmas", above=0, finite=True, changeable=True),
    ),
    _group("target", "The target network. Used with algorithm=impact, dqn and iqn.",
        _field("period", 1, "updates between two moves of the target network; 0, with"
            " dqn and iqn only: no target network", at_least=0),
        _field("polyak", 0.0, "share of itself that it keeps; 0: a copy",
            _below_one(", or the target network never moves")),
        changeable=True,
    ),
    _group("learner", "The process that learns.",
        _field("ranks", 1, "processes that learn, each a share of every batch; rank r"
            " on cuda:r", at_least=1, at_most=32, operational=True),
        _field("processes", 1, "processes that learn, where several policies play:"
            " policy k in process k modulo their number; 0: one a policy",
            at_least=0, at_most=32, operational=True),
        _field("device", "auto", "torch device: cpu, cuda or cuda:N; auto: cuda for a"
            " large network where there is a GPU", operational=True),
        _field("precision", "float32", "number format of the network; its heads,"
            " V-trace and losses are always float32; auto: bfloat16 where a measured"
            " update is faster by a tenth", one_of=("float32", "bfloat16", "auto")),
        _field("cuda_graph", False, "replay the whole update as one graph; with several"
            " ranks as graphs between their exchanges; CUDA only", operational=True),
        _field("threads", 0, "torch threads; 0: the cores that the actors leave, at"
            " least 1", at_least=0, operational=True),
        _field("passes", 8, "times that an update learns the whole batch", at_least=1,
            changeable=True),
        _field("minibatches", 1, "optimizer steps of a pass, each over an equal share"
            " of the batch, drawn at random: transitions with algorithm=impact, no core"
            " and no last_action, else trajectories", at_least=1, changeable=True),
        _field("micro_batches", 1, "parts of a batch: same update, less memory;"
            " 0 (auto): the fastest number of parts",
            at_least=0, operational=True, automatic=True),
    ),
    _group("league", "Games against frozen snapshots of the policy itself.",
        _field("every", 0, "agent steps from a snapshot to the next; 0: no league",
            at_least=0),
        _field("threshold", 0.0, "win rate against each snapshot at which the next is"
            f" taken at once, after {league.MIN_GAMES} games with each; 0: never",
            schema.number("at least 0 and below 1", lambda x: 0.0 <= x < 1.0)),
        _field("size", 16, "snapshots that play; the newest half, and of older ones"
            " fewer the older they are", at_least=1, at_most=256),
        _field("share", 0.5, "share of an actor's games in which snapshots play the"
            " other sides; in the rest the newest policy plays all", above=0,
            at_most=1),
        _field("draw", league.HARD, "how often a snapshot plays, by the win rate p"
            " against it; hard: (1-p)^2, even: p(1-p), uniform: alike, latest: the"
            " newest alone", one_of=league.DRAWS),
        changeable=True,
    ),
    _group("replay", "Experience replay.",
        _field("ratio", 0.0, "share of a batch that is replayed; 0: no replay",
            _below_one(", because a batch needs fresh trajectories")),
        _field("reuse", 0.0, "times that a trajectory is learned, on average; all of a"
            " batch is drawn from the replay; inf: learner and actors never wait for"
            " each other; 0: by ratio", at_least=0),
        _field("start", 0, "trajectories in the replay before learning begins, with"
            " reuse", at_least=0),
        _field("memory_mib", 256.0, "MiB of the learner's memory; what fits is the"
            " capacity", above=0, finite=True),
        _field("eviction", "fifo", "evicts the oldest, or the lowest priority",
            one_of=("fifo", "priority")),
        _field("priority_exponent", 0.0, "alpha: draws by priority ** alpha; 0:"
            " uniform", at_least=0, finite=True),
        _field("priority_eta", 0.9, "priority: eta * max + (1 - eta) * mean of |TD"
            " error|", between=(0, 1), changeable=True),
        _field("importance_exponent", 0.4, "beta at first; linear to 1 at"
            " total_agent_steps", between=(0, 1), changeable=True),
        _field("burn_in", False, "compute the core state before a replayed trajectory"
            " from the rows of the one before it; from the actor's state where that"
            " one is gone"),
        # The recorded policy is the policy as it acted, epsilon and temperature
        # included: cloning keeps some of that.
        _field("clear_policy_cost", 0.0, "weight of KL(recorded || policy), on replayed"
            " data; CLEAR: 0.01", at_least=0, finite=True, changeable=True),
        _field("clear_value_cost", 0.0, "weight of (V - recorded V)^2, on replayed"
            " data; CLEAR: 0.005", at_least=0, finite=True, changeable=True),
        _field("trust_region", 0.0, "nats of KL(policy || recorded); replayed data"
            " beyond is not learned; 0: no limit", at_least=0, changeable=True),
        _field("save", False, "save the replay in checkpoints; otherwise it is empty"
            " after a resume. Learning pauses for 3 to 10 s a GiB; half of"
            " shutdown.deadline_secs must be enough for the last save",
            operational=True),
    ),
)
# fmt: on
