"""Exchange between ranks: sums, gathers, lost peers; only here torch.distributed."""

import ast
import pathlib
import threading

import pytest
import torch

from impala_mp.transport import control_block, ranks
from tests.support import rank_threads

_PACKAGE = pathlib.Path(ranks.__file__).parents[1]


def _imports_distributed(node):
    names = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        names = [f"{node.module}.{alias.name}" for alias in node.names]
    return any(name.startswith("torch.distributed") for name in names)


def test_one_module_imports_torch_distributed_and_not_before_a_group_is_made():
    found = set()
    for path in _PACKAGE.rglob("*.py"):
        text = path.read_text()
        if "distributed" not in text:
            continue
        tree = ast.parse(text)
        assert "torch.distributed" not in {
            ast.unparse(n) for n in ast.walk(tree) if isinstance(n, ast.Attribute)
        }
        if any(map(_imports_distributed, ast.walk(tree))):
            found.add(path.relative_to(_PACKAGE).as_posix())
            assert not any(map(_imports_distributed, tree.body))
    assert found == {"transport/ranks.py"}


def test_sums_and_gathers_are_the_same_on_all_ranks():
    def function(group):
        own = torch.tensor([1.0, float("nan"), group.rank])
        total, given = own.clone(), torch.full((2,), group.rank)
        group.sum(total)
        group.broadcast(given)
        found = own.new_empty((group.size, *own.shape))
        group.gather(own, found)
        return total, found, given

    for total, gathered, given in rank_threads.run(3, function):
        assert total[0] == 3.0
        assert total[1].isnan()
        assert total[2] == 3.0
        assert gathered[:, 2].tolist() == [0.0, 1.0, 2.0]
        assert given.tolist() == [0, 0]


def test_a_waiting_rank_is_seen_to_wait_and_a_lost_one_is_noticed():
    meeting, control = ranks.Rendezvous(), control_block.ControlBlock(2)
    rows, failures = [control.row(rank) for rank in range(2)], []
    rows[0].beat(control_block.State.RUNNING)
    together = threading.Barrier(2)

    def stay():
        group = ranks.Group(meeting.port, "0/0", 0, 2, rows[0])
        together.wait()
        assert rows[0].state == control_block.State.RUNNING
        try:
            group.sum(torch.zeros(3))
        except ranks.PeersLost as error:
            failures.append(error)

    def leave():
        group = ranks.Group(meeting.port, "0/0", 1, 2, rows[1])
        together.wait()
        waiting = control_block.State.WAITING_FOR_RANKS
        while rows[0].state != waiting:
            pass
        del group

    threads = [threading.Thread(target=each) for each in (stay, leave)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30.0)
    assert len(failures) == 1


def test_ranks_of_different_generations_do_not_meet():
    meeting, control = ranks.Rendezvous(), control_block.ControlBlock(2)
    made = []

    def join(generation, rank):
        row = control.row(rank)
        made.append(ranks.Group(meeting.port, generation, rank, 2, row))

    late = threading.Thread(target=join, args=("0/0", 0), daemon=True)
    late.start()
    threads = [threading.Thread(target=join, args=("0/1", r)) for r in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30.0)
    assert len(made) == 2
    assert late.is_alive()
    join("0/0", 1)  # its peer comes at last
    late.join(30.0)
    assert not late.is_alive()


@pytest.mark.parametrize("kind", ["sum", "exchange"])
def test_all_ports_are_on_loopback(kind):
    def function(group):
        group.sum(torch.zeros(3)) if kind == "sum" else group.exchange([1.0])
        return _listening()

    for found in rank_threads.run(2, function):
        assert found <= {"0100007F"}


def _listening():
    """Addresses that this process listens on."""
    inodes = set()
    for link in pathlib.Path("/proc/self/fd").iterdir():
        try:
            target = str(link.readlink())
        except OSError:
            continue
        if target.startswith("socket:"):
            inodes.add(target[8:-1])
    lines = pathlib.Path("/proc/self/net/tcp").read_text().splitlines()[1:]
    rows = [line.split() for line in lines]
    return {row[1].split(":")[0] for row in rows if row[3] == "0A" and row[9] in inodes}
