"""How much memory this process may still take."""

from __future__ import annotations

from pathlib import Path

UNKNOWN = 4 << 30  # where the system does not tell


def available_memory() -> int:
    """Bytes that can be had without pushing anybody out: of the machine, and of this process's control group."""
    return min(_machine(), _group())


def _machine() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return UNKNOWN


def _group() -> int:
    """What the control group's limit leaves (cgroup v2, then v1); a large number when there is no limit.

    Pages of files that nobody has touched lately count as free: they are given up before anything is refused.
    """
    for limit, usage, stat, idle in (
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        (
            "memory/memory.limit_in_bytes",
            "memory/memory.usage_in_bytes",
            "memory/memory.stat",
            "total_inactive_file",
        ),
    ):
        try:
            most, used, said = (Path("/sys/fs/cgroup", name).read_text().strip() for name in (limit, usage, stat))
            if most != "max":
                files = dict(line.split(maxsplit=1) for line in said.splitlines()).get(idle, "0")
                return max(0, int(most) - max(0, int(used) - int(files)))
        except (OSError, ValueError):
            continue
    return 1 << 62
