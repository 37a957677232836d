"""The native backend: plans recorded once, replayed in C++."""

from __future__ import annotations

from quickbrown import _native
from quickbrown.backends.native.threads import usable_threads

__all__ = ["measure_read_bandwidth", "usable_threads", "variant"]


def variant() -> dict[str, str | list[str]]:
    """The kernel variant in use (`name`), why (`reason`), and those this CPU can run (`available`, best last).

    Raises RuntimeError, with a sentence, when QB_ISA asks for one that is unknown or impossible here.
    """
    return {
        "name": _native.variant(),
        "reason": _native.variant_reason(),
        "available": _native.available_variants().split(),
    }


def measure_read_bandwidth(threads: int | None = None) -> float:
    """Bytes a second that `threads` threads together read from 512 MB of memory, best of five passes."""
    pool = _native.Pool(threads or usable_threads())
    return pool.read_bandwidth()
