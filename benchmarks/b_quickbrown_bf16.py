"""quickbrown's speed in one process with activations="bf16", as driver.py says."""

from __future__ import annotations

from b_quickbrown import Quickbrown
from driver import drive

if __name__ == "__main__":
    drive("quickbrown, bf16 activations", lambda a: Quickbrown(a, activations="bf16"))
