"""One round of rivals.py: each side once, in turn, in a fresh process. Prints a JSON line a side.

    python benchmarks/one_round.py '{"threads": 2, "timeout": 100, "sides": [["NAME", ["COMMAND", "ARGUMENT"]]]}'

Before each process, the threads read plain memory for a moment: `read_rate`, bytes a second; and multiply and add in
their registers: `peaks`, operations a second of int8, bf16 and f32. While it runs, the
kernel's account of it is read every 20 ms: `peak_bytes` is the most memory that it ever had mapped in, anonymous and
of files together; `anonymous_bytes` and `mapped_bytes` are its parts when these readings found the most.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from quickbrown import _native

EVERY = 0.02  # seconds between two readings of a process's memory
KEPT = 300  # characters of what a process that failed said


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no process of a side is left behind
    task = json.loads(sys.argv[1])
    for name, command in task["sides"]:
        found = {"side": name, **machine(task["threads"])}
        print(json.dumps(found | run(command, task["timeout"])), flush=True)


def machine(threads: int) -> dict[str, Any]:
    """How fast it is now. The threads are gone when this returns."""
    pool = _native.Pool(threads)
    peaks = {kind: pool.peak(kind) for kind in ("int8", "bf16", "f32")}
    return {"read_rate": pool.read_bandwidth(), "peaks": peaks}


def run(command: list[str], timeout: float) -> dict[str, Any]:
    """What a process printed as its last line of JSON, and its memory; or `failed`, and why."""
    memory = Memory()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        started = time.monotonic()
        try:
            process = subprocess.Popen(command, stdout=out, stderr=errors)
        except OSError as error:
            return {"failed": f"{command[0]}: {error.strerror}"}
        try:
            while process.poll() is None:
                memory.read(process.pid)
                if time.monotonic() - started > timeout:
                    return {"failed": f"took longer than {timeout:g} s"}
                time.sleep(EVERY)
        finally:
            process.kill()
            process.wait()
        out.seek(0)
        errors.seek(0)
        said = (errors.read().strip().splitlines() or [f"exit code {process.returncode}"])[-1]
        if process.returncode:
            return {"failed": said[:KEPT]}
        try:
            found: dict[str, Any] = json.loads(out.read().splitlines()[-1])
        except (ValueError, IndexError):
            return {"failed": f"printed no line of JSON; its last words: {said[:KEPT]}"}
    found["start_s"] = found.pop("first_token_at") - started  # more exact than what the process knows of its age
    return found | memory.found


class Memory:
    """The most memory that a process had, from /proc/PID/status."""

    def __init__(self) -> None:
        self.found = {"peak_bytes": 0, "anonymous_bytes": 0, "mapped_bytes": 0}

    def read(self, pid: int) -> None:
        try:
            text = Path(f"/proc/{pid}/status").read_text()
        except OSError:  # it has just ended
            return
        self.take(text)

    def take(self, status: str) -> None:
        fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        if "VmHWM" not in fields:  # it is ending: its memory has gone
            return
        sizes = {name: int(fields[name].split()[0]) * 1024 for name in ("VmHWM", "RssAnon", "RssFile", "RssShmem")}
        anonymous, mapped = sizes["RssAnon"], sizes["RssFile"] + sizes["RssShmem"]
        self.found["peak_bytes"] = max(self.found["peak_bytes"], sizes["VmHWM"], anonymous + mapped)
        if anonymous + mapped > self.found["anonymous_bytes"] + self.found["mapped_bytes"]:
            self.found |= {"anonymous_bytes": anonymous, "mapped_bytes": mapped}


if __name__ == "__main__":
    main()
