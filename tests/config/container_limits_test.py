"""Limits of control groups, of both versions, in folders that look like theirs."""

import math
import os

import pytest

from impala_mp.config import container_limits


@pytest.fixture
def group(tmp_path, monkeypatch):
    """Writes the files of a group; `groups` are the lines of /proc/self/cgroup."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {*range(4, 68)})
    monkeypatch.setattr(container_limits, "_MOUNT", str(tmp_path / "mount"))
    monkeypatch.setattr(container_limits, "_GROUPS", str(tmp_path / "groups"))

    def write(groups, **folders):
        (tmp_path / "groups").write_text(groups)
        for path, files in folders.items():
            folder = tmp_path / "mount" / path.replace("__", "/")
            folder.mkdir(parents=True, exist_ok=True)
            for name, text in files.items():
                (folder / name).write_text(f"{text}\n")

    return write


_V1 = "12:memory:/docker/a1\n4:cpu,cpuacct:/docker/a1\n1:name=systemd:/\n0::/\n"
_V2 = "0::/kubepods/pod7/c1\n"


def _v1(quota):
    return {"cpu.cfs_quota_us": quota, "cpu.cfs_period_us": 100_000}


def _v2(quota):
    return {"cpu.max": f"{quota} 100000"}


@pytest.mark.parametrize(
    ("groups", "folders", "expected"),
    [
        ("", {}, 64),
        (_V2, {}, 64),
        (_V2, {"kubepods": _v2("max")}, 64),
        (_V2, {"kubepods__pod7__c1": _v2(1_600_000)}, 16),
        (_V2, {"kubepods__pod7": _v2(150_000)}, 2),  # that of a parent
        (_V2, {"kubepods__pod7__c1": _v2(800_000), "kubepods": _v2(400_000)}, 4),
        ("0::/\n", {".": _v2(50_000)}, 1),  # as a container sees itself
        ("0::/../../c1\n", {".": _v2(300_000)}, 3),
        (_V2, {"kubepods__pod7__c1": _v2(6_500_000)}, 64),  # more than there are
        (_V1, {"cpu__docker__a1": _v1(-1), "cpu": _v1(-1)}, 64),
        (_V1, {"cpu__docker__a1": _v1(400_000), "cpu": _v1(-1)}, 4),
        (_V1, {"cpu": _v1(250_000)}, 3),  # the path is that outside
    ],
)
def test_a_limit_of_cpu_time_counts_as_so_many_cores(group, groups, folders, expected):
    group(groups, **folders)
    assert container_limits.num_cores() == expected
    bound = list(range(4, 68)) if expected == 64 else []
    assert container_limits.cores_to_bind() == bound


def test_without_control_groups_there_is_the_affinity(group, monkeypatch, tmp_path):
    monkeypatch.setattr(container_limits, "_GROUPS", str(tmp_path / "missing"))
    assert container_limits.num_cores() == 64
    assert container_limits.memory_left() == math.inf


def _memory(limit, used, inactive=0):
    stat = f"anon 300\nfile 650\nactive_file 50\ninactive_file {inactive}"
    return {"memory.max": limit, "memory.current": used, "memory.stat": stat}


def _memory_v1(limit, used, inactive=0):
    stat = f"cache 650\ninactive_file 7\ntotal_inactive_file {inactive}"
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat")
    return dict(zip(names, (limit, used, stat), strict=True))


@pytest.mark.parametrize(
    ("groups", "folders", "expected"),
    [
        ("0::/\n", {".": _memory(1000, 900)}, 100),
        # Most of what is used is files that were read.
        ("0::/\n", {".": _memory(1000, 990, 600)}, 610),
        ("0::/\n", {".": _memory(1000, 1000)}, 0),
        ("0::/\n", {".": _memory("max", 990, 600)}, math.inf),
        (_V2, {"kubepods__pod7__c1": _memory(1000, 300)}, 700),
        (
            _V2,
            {
                "kubepods__pod7__c1": _memory("max", 300),
                "kubepods__pod7": _memory(900, 500),
                "kubepods": _memory(2000, 600),
            },
            400,
        ),
        (_V1, {"memory__docker__a1": _memory_v1(1000, 990, 600)}, 610),
        (_V1, {"memory": _memory_v1(1000, 400)}, 600),
    ],
)
def test_memory_is_left_by_the_tightest_group(group, groups, folders, expected):
    group(groups, **folders)
    assert container_limits.memory_left() == expected
