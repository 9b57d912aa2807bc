"""The subjects of the benchmark by name."""

import bench_parts
import bench_runs
import bench_transport

SUBJECTS = {
    "transport": bench_transport.transport,
    "parameters": bench_transport.parameters,
    "vtrace": bench_parts.vtrace,
    "environment": bench_parts.environment,
    "inference": bench_parts.inference,
    "actor": bench_parts.actor_loop,
    "learner": bench_parts.learn_batch,
    "train": bench_runs.train,
    "health": bench_runs.health,
    "learn": bench_runs.learn,
    "memory": bench_runs.memory,
}
