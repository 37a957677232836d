"""Writes what documents say of the command line and of its options: from the code's own tables, and from what each
command shown writes, typed into a shell."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pages
from quickbrown.cli.command import SAMPLING, flag
from quickbrown.options import options
from quickbrown.types import SamplingParams
from quickbrown.weights import hub

DOCS = Path(__file__).parents[1] / "docs"
DEFAULTS, PAGE = DOCS / "defaults.md", DOCS / "cli.md"
COMMAND = "python tests/cli_page.py"
MODEL = hub.catalogue()["smollm2-135m"]

_VALUES = {field.name: field.default for field in dataclasses.fields(SamplingParams)}
_DEFAULTS = re.compile(r"^\| option \| default \| meaning \|\n(?:\|.*\n)+", re.MULTILINE)
_FLAGS = re.compile(r"^\| flag \| default \| meaning \|\n(?:\|.*\n)+", re.MULTILINE)


def defaults() -> str:
    """docs/defaults.md with the table of today."""
    rows = [f"| `{name}` | {_VALUES[name]} | {one.meaning} |" for name, one in options(SamplingParams).items()]
    return replaced(_DEFAULTS, DEFAULTS.read_text("utf-8"), ["| option | default | meaning |", "|---|---|---|", *rows])


def flags(text: str) -> str:
    """The page of the command line with the table of today."""
    rows = []
    for name, one in SAMPLING.items():
        spelled = ", ".join(f"`{flag(each)}{' ' + one.value if one.value else ''}`" for each in (name, *one.also))
        default = _VALUES[name] if type(_VALUES[name]) in (int, float) else ""
        rows.append(f"| {spelled} | {default} | {one.meaning} |")
    return replaced(_FLAGS, text, ["| flag | default | meaning |", "|---|---|---|", *rows])


def replaced(table: re.Pattern[str], text: str, lines: list[str]) -> str:
    assert len(table.findall(text)) == 1
    return table.sub(lambda _: "\n".join(lines) + "\n", text)


def page() -> str:
    """docs/cli.md of today. The commands run in an empty folder, with a home of their own and the default model, on the
    kernels that every machine has, so that texts and probabilities are the same everywhere."""
    folder = tempfile.mkdtemp()
    try:
        home = Path(folder, "cache", MODEL.path.parent.relative_to(hub.home()))
        home.mkdir(parents=True)
        (home / MODEL.path.name).symlink_to(MODEL.path)
        work = Path(folder, "work")
        work.mkdir()
        environment = {
            **{name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "HF_HUB_OFFLINE")},
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "QB_HOME": str(Path(folder, "cache")),
            "QB_PACKED_LIMIT": "0",
            "QB_ISA": "scalar",
            "COLUMNS": "100",
            "PYTHONIOENCODING": "utf-8",
        }

        def run(heading: str, command: str) -> str:
            measured = command.startswith(("qb bench", "qb doctor"))  # which shows this machine
            done = subprocess.run(
                ["bash", "-c", command],
                cwd=work,
                env=environment | ({"QB_ISA": ""} if measured else {}),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                encoding="utf-8",
                check=False,
            )
            shown = done.stdout.replace(environment["QB_HOME"], "~/.cache/quickbrown")
            return re.sub(r" on Linux-\S+", " on Linux", shown)

        return pages.refreshed(flags(PAGE.read_text("utf-8")), run, mask)
    finally:
        shutil.rmtree(folder)


def mask(command: str, out: str) -> str:
    """What a command writes, without what another machine or moment makes another."""
    if command.startswith("qb doctor") and "--help" not in command:
        return "\n".join(line.split("  ")[0] for line in out.splitlines() if not line.startswith("  "))
    if command.startswith("qb bench") and "--help" not in command:
        return re.sub(r"(?m)^( *\S+(?: \S+)*) {2,}.*", r"\1", out)
    out = re.sub(r"\d+\.\d+(?= s\b| tokens/s)", "#", out)
    out = re.sub(r'((?:seconds|per_second)": )[\d.]+', r"\1#", out)
    return re.sub(r'(logprob": -?\d+\.\d{4})\d*', r"\1", out)


if __name__ == "__main__":
    DEFAULTS.write_text(defaults(), "utf-8")
    PAGE.write_text(page(), "utf-8")
    print(f"wrote {DEFAULTS} and {PAGE}")
