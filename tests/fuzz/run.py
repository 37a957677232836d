"""Searches for bytes that a reader cannot bear, guided by the code that they reach: `run.py TARGET SECONDS`, or `all`.

atheris (libFuzzer) mutates what is in the corpus and what good files are. It stops at the first fault, hang (10 s) or
2 GiB, and leaves the bytes in tests/fuzz/corpus/TARGET, where the tests find them from then on.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import atheris

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]
with atheris.instrument_imports(include=["quickbrown"]):
    import targets


def every(seconds: str) -> int:
    """The search of each target, in a process of its own; how many found something."""
    done = [subprocess.run([sys.executable, __file__, name, seconds], check=False) for name in targets.TARGETS]
    return sum(one.returncode != 0 for one in done)


def main(name: str, seconds: str) -> None:
    if name == "all":
        sys.exit(every(seconds))
    warnings.simplefilter("ignore")
    work = Path(tempfile.mkdtemp(prefix="qb-fuzz-"))
    found, kept, inside = work / "found", HERE / "corpus" / name, work / "inside"
    for folder in (found, kept, work / "seeds"):
        folder.mkdir(parents=True, exist_ok=True)
    for i, seed in enumerate(targets.seeds(name, work / "seeds")):
        (found / f"seed{i}").write_bytes(seed)

    def once(data: bytes) -> None:
        targets.SAID.clear()
        shutil.rmtree(inside, ignore_errors=True)
        inside.mkdir()
        targets.TARGETS[name](data, inside)

    options = [f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=2048", "-max_len=65536", "-verbosity=1"]
    options += ["-print_final_stats=1", "-len_control=0", f"-artifact_prefix={kept}/"]
    atheris.Setup([sys.argv[0], *options, str(found), str(kept)], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
