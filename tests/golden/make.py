"""Makes smollm2-135m.json: run `python tests/golden/make.py` when a change of arithmetic is meant, and say so.

For each instruction set that this machine has, a process of its own (QB_ISA is read once) loads the default model from
its file with the defaults of `LLM`, two threads, and writes 64 tokens after "The quick brown" at temperature 0. Texts
of instruction sets that this machine lacks are kept as they were.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

MODEL, PROMPT, TOKENS = "smollm2-135m", "The quick brown", 64
FILE = Path(__file__).with_name(f"{MODEL}.json")


def written(variant: str) -> dict[str, Any]:
    """What the default model writes under one instruction set: {"tokens": [...], "text": "..."}."""
    run = subprocess.run(
        [sys.executable, __file__, "--here"],
        env=os.environ | {"QB_ISA": variant},
        capture_output=True,
        text=True,
        timeout=300,
    )
    if run.returncode:
        raise RuntimeError(f"under QB_ISA={variant}: {run.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(run.stdout)
    return result


def _here() -> None:
    from quickbrown.llm import LLM

    done = LLM(MODEL, threads=2).generate(PROMPT, max_new_tokens=TOKENS, temperature=0.0)
    print(json.dumps({"tokens": done.tokens, "text": done.text}))


def main() -> None:
    from quickbrown.backends.native import variant
    from quickbrown.weights import hub

    try:
        made_with = version("quickbrown")
    except PackageNotFoundError:  # from a source tree
        pyproject = Path(__file__).parents[2] / "pyproject.toml"
        made_with = next(
            line.split('"')[1] for line in pyproject.read_text().splitlines() if line.startswith("version")
        )
    texts = json.loads(FILE.read_text("utf-8"))["texts"] if FILE.exists() else {}
    texts |= {name: written(name) for name in variant()["available"]}
    golden = {
        "made_by": "tests/golden/make.py",
        "quickbrown": made_with,
        "model": MODEL,
        "sha256": hub.catalogue()[MODEL].sha256,
        "prompt": PROMPT,
        "texts": texts,
    }
    FILE.write_text(json.dumps(golden, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    _here() if sys.argv[1:] == ["--here"] else main()
