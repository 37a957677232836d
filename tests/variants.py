"""The instruction set is chosen once a process: running a test file again under the others that this machine has."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from quickbrown.backends.native import variant

IN_USE = str(variant()["name"])
OTHERS = [name for name in variant()["available"] if name != IN_USE]
INNER = "QB_TESTS_UNDER" in os.environ  # this process is such a run

# Put on the test that starts the others, so that they do not start each other.
outer_only = [
    pytest.mark.skipif(INNER, reason="this is the run under one instruction set that another run started"),
    pytest.mark.parametrize("name", OTHERS or [pytest.param("none", marks=pytest.mark.skip(
        reason="this machine has one instruction set only; a CPU with AVX2 or AVX-512 would run more"))]),
]  # fmt: skip


def again(file: str, name: str) -> None:
    """Run `file` under the instruction set `name`; fail with its output if it fails, or if nothing passed there."""
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", file],
        env=os.environ | {"QB_ISA": name, "QB_TESTS_UNDER": name},
        capture_output=True,
        text=True,
        timeout=300,
    )
    if run.returncode != 0 or " passed" not in run.stdout:
        said = f"{run.stdout[-6000:]}\n{run.stderr[-2000:]}"
        pytest.fail(f"under QB_ISA={name} (exit {run.returncode}):\n{said}", pytrace=False)
