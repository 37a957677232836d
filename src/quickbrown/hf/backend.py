"""What there is to compute on."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def get_backend() -> tuple[str, int, Callable[..., int]]:
    """The device to move things to, how many there are of it, and a function for the memory taken on it.

    The device is always "cpu", of which there is one. The function takes the device, if anything, and returns the bytes
    that this process holds in memory, or 0 where the system does not tell.
    """
    return "cpu", 1, memory_allocated


def memory_allocated(device: object = None) -> int:
    """Bytes of main memory that this process holds, or 0 where the system does not tell. There is only one device."""
    if device is not None and str(device) not in ("cpu", "cpu:0"):
        raise ValueError(f"quickbrown computes on the CPU; the device must be 'cpu', not {str(device)!r}")
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
