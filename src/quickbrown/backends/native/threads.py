"""How many threads to use: physical cores, within this process's affinity and its control group's quota."""

from __future__ import annotations

import os
from pathlib import Path


def usable_threads() -> int:
    """At least 1. Two hardware threads of one core count once: they share its arithmetic units and its caches."""
    try:
        cpus = os.sched_getaffinity(0)
    except AttributeError:  # not on every system
        return os.cpu_count() or 1
    cores = {_core(cpu) for cpu in cpus}
    return max(1, min(len(cores), _quota()))


def _core(cpu: int) -> str:
    """A name for the physical core that `cpu` is a thread of."""
    try:
        return Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text().strip()
    except OSError:
        return str(cpu)


def _quota() -> int:
    """Whole CPUs that the control group grants (cgroup v2, then v1); a large number when there is no limit."""
    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            quota, period = " ".join(Path("/sys/fs/cgroup", f).read_text() for f in files).split()[:2]
        except (OSError, ValueError):
            continue
        if quota not in ("max", "-1"):
            return max(1, round(int(quota) / int(period)))
    return 1 << 16
