"""What was made of a model's files, kept for its next start: `<home>/packed/`.

A kept file is a header, and a payload to map. It is made anew whenever it cannot be used, so nothing here raises for
what a disk holds or refuses. Files appear whole, under a name that says what they were made of; one process writes one
of them at a time, the others go without. Those unused for longest make room (QB_PACKED_LIMIT).

The header takes the first 2 MB, of which the disk holds what is used:

    8 bytes   MAGIC
    u64       the length of the description
    32 bytes  its SHA-256
    ...       the description: a JSON object, the fields of `Description`
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import json
import mmap
import os
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import blake2b, sha256
from pathlib import Path
from struct import Struct
from typing import Any, NamedTuple

from quickbrown.weights import hub
from quickbrown.weights.source import BadFile, bad_file, parse_json

LIMIT = 20_000_000_000  # bytes on the disk of all kept files together, unless QB_PACKED_LIMIT says otherwise
HEADER = 2 << 20  # where the payload begins: at a large page, so that it can be mapped in such
LOOK, LONGEST = 0.25, 30.0  # seconds: how often it is asked whether others are occupied, and how long they may be
NICE = 10  # of the thread that writes: a ninth of what others get
MAGIC = b"QBKEPT\0\1"
_HEAD = Struct("<8sQ32s")
_KEPT, _PART = ".kept", ".part"
_SLICE = 4 << 20
_SYNC = 64 << 20  # bytes that go to the disk at once: giving up waits for no more


class Original(NamedTuple):
    """A file that something was made of, as far as one look tells: with any of this changed, it is another."""

    name: str
    size: int
    mtime_ns: int
    inode: int
    device: int


class Description(NamedTuple):
    """What a kept file says of itself.

    source   the resolved path of the model
    layout   of the payload: a version that only its maker understands
    facts    what its maker wants to know before the payload is read
    files    the originals, and the SHA-256 of each
    bytes    of the payload, and their SHA-256
    """

    source: str
    kind: str
    layout: str
    facts: dict[str, Any]
    files: list[tuple[Original, str]]
    bytes: int
    sha256: str


class Found(NamedTuple):
    """A payload, mapped and read-only, and the facts that it was kept with."""

    data: mmap.mmap
    facts: dict[str, Any]


class Kept:
    """One thing that is made of a model, and where it is kept.

    source  the model: a file or a folder
    kind    which of the things made of it this is; one of each kind is kept
    layout  the version of what is kept: another is of no use
    of      patterns of the names of the files in the folder that it is made of

    Make it before the source is opened, and open it after: a source that changes in between is no longer this one, and
    nothing is found or kept of it. Raises ValueError for a QB_PACKED_LIMIT that is no number of bytes.
    """

    def __init__(self, source: Path, kind: str, layout: str, of: Sequence[str] = ()) -> None:
        self.source, self.kind, self.layout, self._of = source.resolve(), kind, layout, of
        self.limit = limit()
        name = blake2b(os.fsencode(f"{kind}\0{self.source}"), digest_size=16).hexdigest()
        self.path = folder() / (name + _KEPT)
        self._originals = originals(self.source, of)

    def open(self) -> Found | None:
        """What was kept, if it was made of the source as it is now, in this layout, by this user."""
        if not self.limit or not self._unchanged():
            return None
        try:
            with _opened(self.path) as handle:
                found = _description(self.path, handle)
                if (found.source, found.kind, found.layout) != (os.fspath(self.source), self.kind, self.layout):
                    return None
                if [original for original, _ in found.files] != self._originals:
                    return None
                with contextlib.suppress(OSError):
                    os.utime(handle)  # used last
                return Found(mmap.mmap(handle, found.bytes, access=mmap.ACCESS_READ, offset=HEADER), found.facts)
        except (OSError, ValueError):
            return None

    def write(self, facts: Mapping[str, Any], parts: Sequence[Any]) -> bool:
        """Keep buffers, end to end, with some facts; whether they are kept now.

        They are not if the limit or the disk has no room, the folder cannot be written, another process writes the same
        file, the source has changed, or `give_up` was called. There is never a second copy of them in memory.
        """
        views = [memoryview(part).cast("B") for part in parts]
        size = sum(view.nbytes for view in views)
        if not size or size > self.limit or not self._unchanged():
            return False
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            room = os.statvfs(self.path.parent)
            if size > room.f_bavail * room.f_frsize // 2:  # the other half is for everybody else
                return False
            with _part(self.path) as (part, handle):
                _make_room(self.limit - size, self.path)
                checksum = _copy(handle, views)
                files = [(original, self._digest(original)) for original in self._originals]
                source = os.fspath(self.source)
                _describe(handle, Description(source, self.kind, self.layout, dict(facts), files, size, checksum))
                os.fsync(handle)
                if not self._unchanged():
                    return False
                os.replace(part, self.path)
                return True
        except OSError:
            return False

    def _unchanged(self) -> bool:
        return bool(self._originals) and originals(self.source, self._of) == self._originals

    def _digest(self, original: Original) -> str:
        return digest(self.source / original.name, original) or _stop("the source has changed")


def limit() -> int:
    """The most bytes of the disk that kept files may take together; 0: nothing is kept. Raises ValueError."""
    text = os.environ.get("QB_PACKED_LIMIT", "")
    if text and not (text.isascii() and text.isdigit() and len(text) < 19):
        raise ValueError(f"QB_PACKED_LIMIT must be a number of bytes (0 keeps nothing), not {text!r}")
    return int(text) if text else LIMIT


def folder() -> Path:
    """Where kept files lie."""
    return hub.home() / "packed"


def originals(source: Path, of: Sequence[str]) -> list[Original]:
    """The files that a model consists of, as they are now; none if they cannot be seen."""
    try:
        if not source.is_dir():
            return [_original("", os.stat(source))]
        names = sorted({path.name for pattern in of for path in source.glob(pattern)})
        return [_original(name, os.stat(source / name)) for name in names]
    except OSError:
        return []


def _original(name: str, status: os.stat_result) -> Original:
    return Original(name, status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev)


def digest(path: Path, original: Original) -> str:
    """The SHA-256 of a file; "" if it is not the original. Raises OSError."""
    total = sha256()
    with open(path, "rb", buffering=0) as file:
        if _original(original.name, os.fstat(file.fileno())) != original:
            return ""
        while chunk := file.read(_SLICE):
            _go_on()
            total.update(chunk)
    return total.hexdigest()


def _stop(why: str) -> str:
    raise InterruptedError(why)


# Reading


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    """A file for reading; nothing waits for what is no file."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        yield handle
    finally:
        os.close(handle)


def _description(path: Path, handle: int) -> Description:
    """What a kept file says of itself, all of it checked. Raises BadFile and OSError."""
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        raise bad_file(path, "is no plain file")
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise bad_file(path, "others can write it")
    head = os.pread(handle, _HEAD.size, 0)
    if len(head) < _HEAD.size or head[:8] != MAGIC:
        raise bad_file(path, "is none that quickbrown keeps")
    _, length, checksum = _HEAD.unpack(head)
    if length > HEADER - _HEAD.size:
        raise bad_file(path, f"its description is to be {length} bytes long")
    text = os.pread(handle, length, _HEAD.size)
    if sha256(text).digest() != checksum:
        raise bad_file(path, "its description is damaged")
    value = parse_json(text, path)
    kinds = {"source": str, "kind": str, "layout": str, "facts": dict, "files": list, "bytes": int, "sha256": str}
    if {name: type(field) for name, field in value.items()} != kinds:
        raise bad_file(path, "its description has other fields")
    if value["bytes"] < 1 or HEADER + value["bytes"] != status.st_size:
        raise bad_file(path, f"has {status.st_size} bytes, which are not {HEADER} and {value['bytes']}")
    if not _a_path(value["source"]):
        raise bad_file(path, f"names the source {value['source']!r}")
    files = [_file(path, entry) for entry in value.pop("files")]
    return Description(files=files, **value)


def _file(path: Path, entry: Any) -> tuple[Original, str]:
    if not isinstance(entry, list) or [type(field) for field in entry] != [str, int, int, int, int, str]:
        raise bad_file(path, "describes a file in another way")
    if entry[0] != Path(entry[0]).name or entry[0] == ".." or not _a_path(entry[0]):
        raise bad_file(path, f"names the file {entry[0]!r} in a folder")
    return Original(*entry[:5]), entry[5]


def _a_path(text: str) -> bool:
    """Whether the system takes it for a path: no NUL, no character that no bytes stand for."""
    with contextlib.suppress(UnicodeEncodeError):
        return b"\0" not in os.fsencode(text)
    return False


# Writing


@contextlib.contextmanager
def _part(path: Path) -> Iterator[tuple[Path, int]]:
    """An empty file beside `path` that no other process writes, which is to be renamed; else it goes. Raises OSError.

    The lock is the file's own, so that it ends with a process that is killed. What bears the name may have become
    another file before the lock was had: then this one is or was somebody's, and must not be touched.
    """
    part = path.with_suffix(_PART)
    handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        status = os.fstat(handle)
        if not os.path.samestat(status, os.lstat(part)):
            raise BlockingIOError("another process has just written it")
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_nlink != 1:
            raise PermissionError("somebody else's file is in the way")
        os.fchmod(handle, 0o600)
        os.ftruncate(handle, 0)
        try:
            yield part, handle
        finally:
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(status, os.lstat(part)):
                    os.unlink(part)
    finally:
        os.close(handle)


def _copy(handle: int, views: list[memoryview]) -> str:
    """Write a payload; its SHA-256. Raises OSError."""
    total, at = sha256(), HEADER
    for view in views:
        for first in range(0, view.nbytes, _SLICE):
            _go_on()
            piece = view[first : first + _SLICE]
            total.update(piece)
            while piece:
                count = os.pwrite(handle, piece, at)
                piece, at = piece[count:], at + count
            if (at - HEADER) % _SYNC == 0:
                os.fsync(handle)
    return total.hexdigest()


def _describe(handle: int, described: Description) -> None:
    fields = described._asdict() | {"files": [[*original, sha] for original, sha in described.files]}
    text = json.dumps(fields).encode()
    if len(text) > HEADER - _HEAD.size:
        raise OSError("the description is too long")
    os.pwrite(handle, _HEAD.pack(MAGIC, len(text), sha256(text).digest()) + text, 0)


def _make_room(room: int, newest: Path) -> None:
    """Remove what was used longest ago, until all but `newest` take at most `room`, and what killed writers left."""
    for path, status in _files():
        if path != newest:
            room -= _taken(status)
            if room < 0:
                path.unlink(missing_ok=True)
    for leftover in newest.parent.glob("*" + _PART):
        if leftover != newest.with_suffix(_PART):
            with contextlib.suppress(OSError), _part(leftover):
                pass


def _files() -> list[tuple[Path, os.stat_result]]:
    """All kept files, the one used last first."""
    found = []
    for path in folder().glob("*" + _KEPT):
        with contextlib.suppress(OSError):
            found.append((path, os.lstat(path)))
    return sorted(found, key=lambda item: item[1].st_mtime_ns, reverse=True)


def _taken(status: os.stat_result) -> int:
    return status.st_blocks * 512


# In the background

_running: dict[threading.Event, threading.Event] = {}  # set when it is done, and when it is waited for
_given_up = threading.Event()
os.register_at_fork(after_in_child=_running.clear)  # a child has none of its parent's threads


def later(call: Callable[[], object], occupied: Callable[[], bool] | None = None) -> threading.Event:
    """Do something on a thread of its own; the event is set when it is done. The process waits for it (`finish`).

    occupied  whether there is something better to do, asked now and then: it begins when there is not, when somebody
              waits for it, or after `LONGEST`

    Texts may be written meanwhile, so the thread steps back for others; not further than `NICE`, or whoever wants the
    GIL would wait long for it where other processes take all there is.
    """
    done, hurry = threading.Event(), threading.Event()

    def run() -> None:
        if sys.platform == "linux":  # where a thread has a priority of its own
            me = threading.get_native_id()
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, me, max(NICE, os.getpriority(os.PRIO_PROCESS, me)))
        try:
            end = time.monotonic() + LONGEST
            while occupied and not hurry.wait(LOOK) and occupied() and time.monotonic() < end:
                pass
            call()
        finally:
            _running.pop(done, None)
            done.set()

    _running[done] = hurry
    try:
        threading.Thread(target=run, name="quickbrown-kept", daemon=True).start()
    except RuntimeError:  # none can be had, as at the end of the process
        _running.pop(done, None)
        raise
    return done


def finish(events: Sequence[threading.Event] = ()) -> None:
    """Wait for what `later` began, for all of it unless some is named. Ctrl-C gives up what is being written."""
    pending = _hurry(events or list(_running))
    try:
        for done in pending:  # not for threads: one whose join is interrupted counts as ended
            done.wait()
    except KeyboardInterrupt:
        give_up()
        for done in pending:
            done.wait()
        raise


def busy(patience: float) -> bool:
    """Whether something that `later` began is not done after so many seconds."""
    end = time.monotonic() + patience
    return not all(done.wait(max(0.0, end - time.monotonic())) for done in _hurry(list(_running)))


def give_up() -> None:
    """Keep nothing more in this process: what is being written is dropped."""
    _given_up.set()
    _hurry(list(_running))


def _hurry(events: Sequence[threading.Event]) -> list[threading.Event]:
    """Have them begin at once; those that are not done."""
    pending = [(done, hurry) for done in events if (hurry := _running.get(done))]
    for _, hurry in pending:
        hurry.set()
    return [done for done, _ in pending]


def _go_on() -> None:
    if _given_up.is_set():
        _stop("given up")


@atexit.register
def _at_exit() -> None:
    with contextlib.suppress(KeyboardInterrupt):
        finish()


# Looking after what is kept


class Entry(NamedTuple):
    """A kept file: what it takes of the disk, and what it says of itself, or what is wrong with it."""

    path: Path
    bytes: int
    description: Description | None
    fault: str


def entries() -> list[Entry]:
    """All kept files, the one used last first."""
    found = []
    for path, status in _files():
        description, fault = None, ""
        try:
            with _opened(path) as handle:
                description = _description(path, handle)
        except BadFile as error:
            fault = str(error)
        except OSError as error:
            fault = f"{path}: {error.strerror}."
        found.append(Entry(path, _taken(status), description, fault))
    return found


def stale(description: Description) -> bool:
    """Whether the source is gone or another than it was."""
    source = Path(description.source)
    for original, _ in description.files:
        try:
            if _original(original.name, os.stat(source / original.name)) != original:
                return True
        except OSError:
            return True
    return False


def damage(entry: Entry) -> str:
    """What is wrong with a kept file that is not stale, all of it and its source read; "" if nothing is."""
    said = entry.description
    if said is None:
        return entry.fault
    try:
        with open(entry.path, "rb", buffering=0) as file:
            file.seek(HEADER)
            total = sha256()
            while chunk := file.read(_SLICE):
                total.update(chunk)
        if total.hexdigest() != said.sha256:
            return f"{entry.path}: its bytes are not those that were written."
        for original, expected in said.files:
            path = Path(said.source) / original.name
            if digest(path, original) != expected:
                return f"{path}: its bytes are not those that {entry.path} was made of, though its time and size are."
    except OSError as error:
        return f"{error.filename or entry.path}: {error.strerror}."
    return ""


def of(source: Path) -> list[Entry]:
    """What is kept of a model, whether it is still there or not."""
    wanted = os.fspath(source.resolve())
    return [entry for entry in entries() if entry.description and entry.description.source == wanted]


def remove(source: Path | None = None) -> int:
    """Remove what is kept of a model, or of all; the bytes of the disk that this freed. Raises OSError."""
    freed = 0
    for entry in entries() if source is None else of(source):
        entry.path.unlink(missing_ok=True)
        freed += entry.bytes
    return freed


def writable() -> bool:
    """Whether something can be kept, as far as permissions go."""
    place = folder()
    while not place.exists() and place != place.parent:
        place = place.parent
    return os.access(place, os.W_OK | os.X_OK)
