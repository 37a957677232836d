"""Which seed each row draws with."""

from __future__ import annotations

import secrets
import struct
import threading
from hashlib import blake2b

from quickbrown.options import is_seed


class Seeds:
    """A default seed, and how many calls have drawn with it. Without one, each call draws a seed of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._default: int | None = None
        self._calls = 0

    def set(self, seed: int) -> None:
        if not is_seed(seed):
            raise ValueError(f"the seed must be a whole number from 0 to 2**64 - 1, not {seed!r}")
        with self._lock:
            self._default, self._calls = int(seed), 0

    def next(self) -> tuple[int, int]:
        """The seed and the number of the next call that names none."""
        with self._lock:
            if self._default is None:
                return secrets.randbits(64), 0
            self._calls += 1
            return self._default, self._calls


_seeds = Seeds()


def set_seed(seed: int) -> None:
    """From here on, the calls that draw without a seed of their own write the same texts in the same order.

    The one state that calls share. Raises ValueError unless `seed` is a whole number from 0 to 2**64 - 1.
    """
    _seeds.set(seed)


def row_seeds(seed: int | tuple[int, ...] | None, rows: int, samples: int) -> list[tuple[int, ...]]:
    """The seed of each sample of each row of a call.

    seed  several are the rows' own, one for each (else ValueError); one, or the default, is hashed with the number of
          the call and the row. The first sample of a row draws with the row's seed, the others with hashes of it.
    """
    if isinstance(seed, tuple):
        if len(seed) != rows:
            raise ValueError(
                f"seed names {len(seed)} rows, but the call has {rows}; give one a prompt, or one number for all"
            )
        own = list(seed)
    else:
        base, call = _seeds.next() if seed is None else (seed, 0)
        own = [hashed(base, call, row) for row in range(rows)]
    return [(s, *(hashed(s, sample) for sample in range(1, samples))) for s in own]


def hashed(*numbers: int) -> int:
    """64 bits of BLAKE2b (RFC 7693) over whole numbers from 0 to 2**64 - 1, each as 8 bytes, little-endian."""
    digest = blake2b(struct.pack(f"<{len(numbers)}Q", *numbers), digest_size=8).digest()
    return int.from_bytes(digest, "little")
