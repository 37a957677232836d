"""qb doctor: what this machine gives quickbrown, and what quickbrown makes of it."""

from __future__ import annotations

import argparse
import os
from typing import Any

from quickbrown import __version__
from quickbrown.cli.command import Command, Parser, whole, write
from quickbrown.cli.info import lines
from quickbrown.types import size


def declare(parser: Parser) -> None:
    parser.add_argument("--threads", metavar="N", type=whole, help="threads to measure with (default: those in use)")
    parser.add_argument(
        "--verify",
        action="store_true",
        help="read all that is kept of models for a faster start, and them, and remove what is stale or damaged",
    )


def run(args: argparse.Namespace) -> int:
    if args.threads is not None and args.threads < 1:
        raise ValueError(f"threads must be a whole number of at least 1, not {args.threads}")
    if args.verify:
        return verify()
    healthy, kernels = variant()
    facts = {"kernels": kernels} | memory(args.threads)
    facts |= {"models": cache(), "packed": packed(), "versions": versions()}
    write("\n".join(lines(facts)) + "\n")
    return 0 if healthy else 1


def variant() -> tuple[bool, dict[str, Any]]:
    from quickbrown.backends import native

    forced = f"QB_ISA={os.environ['QB_ISA']}" if os.environ.get("QB_ISA") else "QB_ISA is not set"
    try:
        found = native.variant()
    except RuntimeError as error:
        return False, {"fault": error, "environment": forced}
    return True, {
        "in use": found["name"],
        "why": found["reason"],
        "possible": found["available"],
        "environment": forced,
    }


def memory(threads: int | None) -> dict[str, Any]:
    from quickbrown.backends import native

    threads = threads or native.usable_threads()
    rate = native.measure_read_bandwidth(threads)
    return {"threads": f"{threads} (of {os.cpu_count()} logical CPUs)", "reading": f"{size(rate)}/s from memory"}


def cache() -> dict[str, Any]:
    from quickbrown.weights import hub

    states = {model.name: size(model.bytes) if model.present else "not fetched" for model in hub.listing()}
    return {"folder": hub.home()} | states


def packed() -> dict[str, Any]:
    """What is kept of models for a faster start."""
    from quickbrown.weights import kept

    entries = kept.entries()
    most = kept.limit()
    state = f"{size(sum(entry.bytes for entry in entries))} of at most {size(most)}" if most else "nothing is kept"
    state += "" if kept.writable() or not most else ", and it cannot be written"
    found = {}
    for entry in entries:
        said = entry.description
        what = f"{said.source} ({said.kind})" if said else f"{entry.path.name} (damaged)"
        found[what] = size(entry.bytes) + (" (stale)" if said and kept.stale(said) else "")
    return {"folder": kept.folder(), "kept": state} | found


def verify() -> int:
    """Read all that is kept, and what it was made of; say what is wrong, and remove that. 1 if something is damaged."""
    from quickbrown.weights import kept

    damaged = 0
    entries = kept.entries()
    if not entries:
        write("nothing is kept\n")
    for entry in entries:
        said = entry.description
        what = f"{said.source} ({said.kind})" if said else str(entry.path)
        if said and kept.stale(said):
            write(f"stale    {what}: the model has changed or is gone\n")
        elif fault := kept.damage(entry):
            damaged += 1
            write(f"damaged  {fault}\n")
        else:
            write(f"good     {what}\n")
            continue
        entry.path.unlink(missing_ok=True)
    return 1 if damaged else 0


def versions() -> dict[str, Any]:
    import platform
    from importlib.metadata import version

    python = f"{platform.python_version()} on {platform.platform()}"
    return {"quickbrown": __version__, "python": python} | {name: version(name) for name in ("numpy", "tokenizers")}


DOCTOR = Command(
    "doctor",
    "Show what this machine offers: kernels, threads, bandwidth, models, versions.",
    declare,
    run,
    "[options]",
    """
qb doctor                      for a report of a bug, too
qb doctor --verify             read all that is kept, and remove what is damaged
""",
)
