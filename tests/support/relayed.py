"""Engine's process of an actor host, without an engine: ORPHAN_SECS [START_SECS [ID]].

It prints its pid, and answers each line of JSON: [question, bytes of parameters] of
each policy. Its replies tell whether it has imported torch. What the host prints goes
to standard error. ID is that of a game, whose players have a policy each.
"""

import json
import os
import sys

import numpy as np

from impala_mp import config as config_lib
from impala_mp.config import fields
from impala_mp.runtime import host_relay
from impala_mp.transport import host_messages

LEFT = 7  # exit code when the host has left for good


def _task():
    config = config_lib.get_impala_config()
    config.environment.id = sys.argv[3] if sys.argv[3:] else "Catch"
    config.environment.sharing = "each" if sys.argv[3:] else "all"
    config.batch_size = 8
    config.cluster.compression = "none"
    config.cluster.orphan_secs = float(sys.argv[1])
    config.health.start_secs = float(sys.argv[2]) if sys.argv[2:] else 120.0
    return host_messages.Task(
        0, f"impala-test-{os.getpid()}", fields.to_json(config), 1, (0, 1), 1
    )


def _frame(num_bytes):
    from impala_mp.transport import slot_wire  # brings torch

    return slot_wire.seal(np.zeros(num_bytes, np.uint8))


def main():
    # A host prints, too, and replies must stay apart.
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    relay = host_relay.Relay(_task()._asdict(), lambda: os._exit(LEFT))
    print(os.getpid(), file=replies)
    for line in sys.stdin:
        questions, sizes = zip(*json.loads(line), strict=True)
        frames = [_frame(size) if size else None for size in sizes]
        found = relay.take(list(questions), frames)
        for reply in found:
            reply["slots"] = len(reply.get("slots", ()))
            reply["torch"] = "torch" in sys.modules
        print(json.dumps(found), file=replies)


if __name__ == "__main__":
    main()
