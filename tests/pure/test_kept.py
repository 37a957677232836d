"""Kept files: found again for the same source only, whole or not at all, whatever lies in their place."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from quickbrown.weights import kept
from quickbrown.weights.kept import HEADER, Kept

PAYLOAD = bytes(range(256)) * 100
FACTS = {"signature": "s", "count": 3, "name": "é\udcff"}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QB_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("QB_PACKED_LIMIT", raising=False)
    return tmp_path / "home"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF" + bytes(1000))
    return path


def write(source: Path, payload: bytes = PAYLOAD, kind: str = "weights", layout: str = "1") -> Kept:
    one = Kept(source, kind, layout)
    assert one.write(FACTS, [payload])
    return one


def found(source: Path, kind: str = "weights", layout: str = "1") -> bytes | None:
    result = Kept(source, kind, layout).open()
    return None if result is None else result.data[:]


def lying(home: Path) -> list[str]:
    return sorted(path.suffix for path in (home / "packed").iterdir())


class TestFoundAgain:
    def test_parts_end_to_end_and_facts(self, source: Path, home: Path) -> None:
        parts = [b"ab", memoryview(b"cdef").cast("H"), b"", bytearray(b"g")]
        assert Kept(source, "weights", "1").open() is None
        assert Kept(source, "weights", "1").write(FACTS, parts)
        result = Kept(source, "weights", "1").open()
        assert result is not None
        assert (result.data[:], result.facts) == (b"abcdefg", FACTS)
        with pytest.raises(TypeError):
            result.data[0] = 1
        (path,) = (home / "packed").iterdir()
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert HEADER % (2 << 20) == 0

    def test_by_any_path_that_leads_there(self, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write(source)
        (tmp_path / "link.gguf").symlink_to(source)
        monkeypatch.chdir(tmp_path)
        assert found(tmp_path / "link.gguf") == found(Path("m.gguf")) == PAYLOAD

    def test_one_of_each_kind(self, source: Path) -> None:
        write(source, b"weights")
        write(source, b"words", kind="vocabulary")
        write(source, b"weights again")
        assert (found(source), found(source, "vocabulary")) == (b"weights again", b"words")
        assert len(kept.entries()) == 2

    def test_a_name_that_is_no_text(self, tmp_path: Path) -> None:
        path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.gguf"))
        path.write_bytes(b"GGUF")
        write(path)
        assert found(path) == PAYLOAD
        (entry,) = kept.entries()
        assert entry.description is not None
        assert not kept.stale(entry.description)
        assert kept.damage(entry) == ""


class TestStale:
    def test_another_layout(self, source: Path) -> None:
        write(source)
        assert found(source, layout="2") is None
        write(source, b"new", layout="2")
        assert (found(source, layout="2"), found(source)) == (b"new", None)

    def test_another_size(self, source: Path) -> None:
        write(source)
        before = source.stat()
        with open(source, "ab") as file:
            file.write(b"x")
        os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert found(source) is None

    def test_another_time(self, source: Path) -> None:
        write(source)
        before = source.stat()
        os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
        assert found(source) is None
        os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert found(source) == PAYLOAD

    def test_another_inode(self, source: Path, tmp_path: Path) -> None:
        write(source)
        before = source.stat()
        other = tmp_path / "other"
        other.write_bytes(source.read_bytes())
        os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
        os.replace(other, source)
        assert found(source) is None

    def test_another_device(self, source: Path) -> None:
        one = write(source)
        text = one.path.read_bytes()[48:HEADER].rstrip(b"\0")
        (name, *same, device, digest), *_ = json.loads(text)["files"]
        described(one.path, {"files": [[name, *same, device + 1, digest]]})
        assert one.open() is None
        described(one.path, {"files": [[name, *same, device, digest]]})
        assert one.open() is not None

    def test_another_path(self, source: Path, tmp_path: Path) -> None:
        """The same file under two names is two models; nothing of one is taken for the other, not even renamed."""
        one = write(source)
        os.link(source, tmp_path / "n.gguf")
        other = Kept(tmp_path / "n.gguf", "weights", "1")
        os.rename(one.path, other.path)
        assert other.open() is None

    @pytest.mark.parametrize("change", ["config.json", "b.safetensors", "new", "gone", "other"])
    def test_any_file_of_a_folder(self, tmp_path: Path, change: str) -> None:
        folder = tmp_path / "folder"
        folder.mkdir()
        for name in ("config.json", "a.safetensors", "b.safetensors", "README.md"):
            (folder / name).write_text(name)
        of = ["config.json", "*.safetensors"]
        assert Kept(folder, "weights", "1", of).write(FACTS, [PAYLOAD])
        assert Kept(folder, "weights", "1", of).open() is not None
        if change == "new":
            (folder / "c.safetensors").write_text("c")
        elif change == "gone":
            (folder / "b.safetensors").unlink()
        elif change == "other":
            (folder / "README.md").write_text("no part of the model")
        else:
            (folder / change).write_text("something else")
        assert (Kept(folder, "weights", "1", of).open() is None) == (change != "other")

    def test_a_source_that_changed_meanwhile_is_not_kept(self, source: Path, home: Path) -> None:
        one = Kept(source, "weights", "1")
        with open(source, "ab") as file:
            file.write(b"x")
        assert not one.write(FACTS, [PAYLOAD])
        assert not home.exists()

    def test_a_source_that_changes_while_it_is_kept(
        self, source: Path, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        copy = kept._copy

        def copied(*args: object) -> str:
            os.utime(source, ns=(1, 1))
            return copy(*args)  # type: ignore[arg-type]

        monkeypatch.setattr(kept, "_copy", copied)
        assert not Kept(source, "weights", "1").write(FACTS, [PAYLOAD])
        assert lying(home) == []

    def test_a_source_that_changed_meanwhile_is_not_found(self, source: Path) -> None:
        """Its maker opened the source in between, and may have opened either."""
        one = write(source)
        os.utime(source, ns=(1, 1))
        assert one.open() is None

    def test_no_source(self, tmp_path: Path) -> None:
        one = Kept(tmp_path / "none.gguf", "weights", "1")
        assert one.open() is None
        assert not one.write(FACTS, [PAYLOAD])


def described(path: Path, change: object = None, checksum: bytes | None = None, length: int | None = None) -> None:
    """Rewrite a kept file's description: fields changed, or the whole text given as bytes."""
    data = path.read_bytes()
    size = struct.unpack_from("<Q", data, 8)[0]
    text = data[48 : 48 + size]
    if isinstance(change, dict):
        text = json.dumps({k: v for k, v in (json.loads(text) | change).items() if v != "drop"}).encode()
    elif isinstance(change, bytes):
        text = change
    head = data[:8] + struct.pack("<Q", len(text) if length is None else length)
    head += sha256(text).digest() if checksum is None else checksum
    path.write_bytes(head + text + bytes(HEADER - 48 - len(text)) + data[HEADER:])


FILE = ["", 1004, 0, 0, 0, "ab"]
HOSTILE = [
    {"change": b""}, {"change": b"{"}, {"change": b"[]"}, {"change": b"\xff"}, {"change": b"[" * 100_000},
    {"change": b"1" * 10_000}, {"change": {"source": "drop"}}, {"change": {"more": 1}}, {"change": {"bytes": 0}},
    {"change": {"bytes": -1}}, {"change": {"bytes": len(PAYLOAD) - 1}}, {"change": {"bytes": len(PAYLOAD) + 1}},
    {"change": {"bytes": 1 << 70}}, {"change": {"bytes": True}}, {"change": {"bytes": "25600"}},
    {"change": {"files": {}}}, {"change": {"files": [1]}}, {"change": {"files": [[]]}},
    {"change": {"files": [FILE[:5]]}}, {"change": {"files": [["../m", *FILE[1:]]]}},
    {"change": {"files": [["..", *FILE[1:]]]}}, {"change": {"files": [["a\0", *FILE[1:]]]}},
    {"change": {"files": [["\ud800", *FILE[1:]]]}}, {"change": {"source": "/a\0"}}, {"change": {"source": "\ud800"}},
    {"change": {"facts": []}}, {"change": {"kind": 1}}, {"checksum": bytes(32)}, {"length": 1 << 63},
    {"length": (1 << 64) - 1}, {"length": HEADER}, {"length": 0},
]  # fmt: skip


class TestHostile:
    """Whatever lies in the place of a kept file, it is made anew, and the doctor can say what it is."""

    @pytest.mark.parametrize("change", HOSTILE, ids=str)
    def test_descriptions(self, source: Path, change: dict[str, object]) -> None:
        one = write(source)
        described(one.path)
        assert one.open() is not None
        described(one.path, **change)  # type: ignore[arg-type]
        assert one.open() is None
        (entry,) = kept.entries()
        assert entry.description is None
        assert entry.fault.endswith(".")
        assert "\n" not in entry.fault
        assert found(write(source).source) == PAYLOAD

    @pytest.mark.parametrize("size", [0, 7, 8, 47, 48, 100, HEADER, HEADER + 1, HEADER + len(PAYLOAD) - 1])
    def test_cut(self, source: Path, size: int) -> None:
        one = write(source)
        os.truncate(one.path, size)
        assert one.open() is None
        write(source)
        assert found(source) == PAYLOAD

    def test_longer(self, source: Path) -> None:
        one = write(source)
        with open(one.path, "ab") as file:
            file.write(b"x")
        assert one.open() is None

    def test_of_another_program(self, source: Path) -> None:
        one = write(source)
        one.path.write_bytes(b"GGUF" + bytes(HEADER))
        assert one.open() is None

    @pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
    def test_others_can_write_it(self, source: Path, mode: int) -> None:
        one = write(source)
        one.path.chmod(mode)
        assert one.open() is None
        write(source)
        assert one.path.stat().st_mode & 0o777 == 0o600
        assert found(source) == PAYLOAD

    def test_of_another_user(self, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        one = write(source)
        me = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: me + 1)
        assert one.open() is None

    @pytest.mark.parametrize("what", ["folder", "fifo", "link", "dangling"])
    def test_no_plain_file(self, source: Path, tmp_path: Path, what: str) -> None:
        """A fifo would be waited for, a link would let others choose the file."""
        one = write(source)
        moved = one.path.rename(tmp_path / "moved")
        if what == "folder":
            one.path.mkdir()
        elif what == "fifo":
            os.mkfifo(one.path)
        else:
            one.path.symlink_to(moved if what == "link" else tmp_path / "nothing")
        assert one.open() is None
        assert one.write(FACTS, [PAYLOAD]) == (what != "folder")
        assert (tmp_path / "moved").exists()

    def test_a_link_in_the_place_of_the_part(self, source: Path, tmp_path: Path) -> None:
        """Hard or symbolic, it must not lead to a file of the user's that is then emptied."""
        precious = tmp_path / "precious"
        precious.write_text("mine")
        one = Kept(source, "weights", "1")
        one.path.parent.mkdir(parents=True)
        for make in (os.link, os.symlink):
            make(precious, one.path.with_suffix(".part"))
            assert not one.write(FACTS, [PAYLOAD])
            one.path.with_suffix(".part").unlink()
            assert precious.read_text() == "mine"


class TestWriting:
    def test_a_mapped_file_outlives_its_replacement(self, source: Path) -> None:
        write(source, b"old" * 5000)
        mapped = Kept(source, "weights", "1").open()
        write(source, b"new")
        assert mapped is not None
        assert mapped.data[:] == b"old" * 5000
        kept.remove()
        assert mapped.data[:] == b"old" * 5000

    def test_nothing_to_keep(self, source: Path) -> None:
        assert not Kept(source, "weights", "1").write(FACTS, [b""])
        assert not Kept(source, "weights", "1").write(FACTS, [])

    def test_facts_that_do_not_fit(self, source: Path, home: Path) -> None:
        assert not Kept(source, "weights", "1").write({"long": "x" * HEADER}, [PAYLOAD])
        assert lying(home) == []

    @pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere; run as another user")
    def test_a_folder_that_cannot_be_written(self, source: Path, home: Path) -> None:
        one = write(source)
        one.path.parent.chmod(0o500)
        try:
            assert not kept.writable()
            assert not Kept(source, "vocabulary", "1").write(FACTS, [PAYLOAD])
            assert found(source) == PAYLOAD
        finally:
            one.path.parent.chmod(0o700)

    @pytest.mark.parametrize("call", ["mkdir", "open", "flock", "pwrite", "fsync", "replace", "statvfs", "utime"])
    @pytest.mark.parametrize("code", [errno.EROFS, errno.ENOSPC, errno.EACCES, errno.ENOLCK])
    def test_a_system_that_refuses(
        self, source: Path, home: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
    ) -> None:
        one = write(source, b"old")

        def refuse(*args: object, **keywords: object) -> None:
            raise OSError(code, os.strerror(code))

        where = {"flock": fcntl, "mkdir": Path}.get(call, os)
        with monkeypatch.context() as patch:
            patch.setattr(where, call, refuse)
            assert one.write(FACTS, [b"new"]) == (call == "utime")
            if call != "open":
                result = one.open()
                assert result is not None  # reading asks for none of this
                assert result.data[:] == (b"new" if call == "utime" else b"old")
        # without a lock it cannot be known whose the part is
        assert lying(home) == ([".kept", ".part"] if call == "flock" else [".kept"])

    def test_a_disk_that_is_full_half_way(self, source: Path, home: Path) -> None:
        """The limit is the system's own, for a file's size: the write itself fails, as on a full disk."""
        code = f"""
import resource
from pathlib import Path
from quickbrown.weights.kept import Kept
resource.setrlimit(resource.RLIMIT_FSIZE, ({HEADER + 100}, {HEADER + 100}))
print(Kept(Path({str(source)!r}), "weights", "1").write({{}}, [bytes(5000)]))
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout == "False\n"
        assert lying(home) == []

    def test_half_of_the_disk_stays_free(self, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        real = os.statvfs(source)
        for blocks, kept_then in ((2 * len(PAYLOAD), True), (2 * len(PAYLOAD) - 2, False)):
            fields = list(real)
            fields[1], fields[4] = 1, blocks  # f_frsize, f_bavail
            monkeypatch.setattr(os, "statvfs", lambda path, f=fields: os.statvfs_result(f))
            assert Kept(source, "weights", "1").write(FACTS, [PAYLOAD]) == kept_then

    def test_a_bug_leaves_nothing_behind(self, source: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(kept, "_describe", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            Kept(source, "weights", "1").write(FACTS, [PAYLOAD])
        assert lying(home) == []

    def test_what_killed_writers_left(self, source: Path, home: Path) -> None:
        """Their own file is begun anew by the next, and others' go; one that is being written stays."""
        packed = home / "packed"
        packed.mkdir(parents=True)
        one = Kept(source, "weights", "1")
        for name in (one.path.stem, "dead", "alive"):
            (packed / f"{name}.part").write_bytes(bytes(1000))
        with open(packed / "alive.part") as alive:
            fcntl.flock(alive, fcntl.LOCK_EX)
            assert one.write(FACTS, [PAYLOAD])
        assert {path.name for path in packed.iterdir()} == {one.path.name, "alive.part"}
        assert found(source) == PAYLOAD

    def test_a_killed_writer(self, source: Path, home: Path) -> None:
        code = f"""
import os, signal
from pathlib import Path
from quickbrown.weights import kept
kept._describe = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
kept.Kept(Path({str(source)!r}), "weights", "1").write({{}}, [bytes(5000)])
"""
        assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
        assert lying(home) == [".part"]
        assert found(source) is None
        write(source)
        assert lying(home) == [".kept"]

    def test_the_lock_of_a_file_that_was_renamed(self, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Between opening the part and locking it, its writer may rename it: then it is the kept file that is locked,
        mapped by others, and must not be emptied. Here the rename comes exactly then."""
        one = write(source, b"live")
        part = one.path.with_suffix(".part")
        os.rename(one.path, part)
        real = fcntl.flock

        def flock(handle: int, how: int) -> None:
            os.rename(part, one.path)
            real(handle, how)

        monkeypatch.setattr(fcntl, "flock", flock)
        assert not one.write(FACTS, [PAYLOAD])
        assert found(source) == b"live"


RACE = """
import sys, time
from pathlib import Path
from quickbrown.weights.kept import Kept
one, payload = Kept(Path(sys.argv[1]), "weights", "1"), sys.argv[2].encode() * 3_000_000
print("ready", flush=True)
sys.stdin.readline()
written = 0
for _ in range(20):
    written += one.write({"who": sys.argv[2]}, [payload])
    found = one.open()
    assert found is None or found.data[:] == found.facts["who"].encode() * 3_000_000
print(written)
"""


def test_processes_that_race(source: Path, home: Path) -> None:
    """Four write and read one file over and over: whoever finds one finds a whole one, and nothing is left over."""
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, str(source), str(i)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for i in range(4)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    written = [int(racer.communicate("\n", timeout=60)[0]) for racer in racers]
    assert all(racer.returncode == 0 for racer in racers)
    assert sum(written) > 0
    assert lying(home) == [".kept"]


class TestLimit:
    def models(self, tmp_path: Path, count: int) -> list[Path]:
        paths = [tmp_path / f"{i}.gguf" for i in range(count)]
        for path in paths:
            path.write_bytes(b"GGUF")
        return paths

    def test_what_was_used_longest_ago_goes(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("QB_PACKED_LIMIT", "3300000")
        paths = self.models(tmp_path, 5)
        for path in paths[:3]:
            write(path, bytes(1_000_000))
            time.sleep(0.02)
        assert found(paths[0]) is not None
        time.sleep(0.02)
        write(paths[3], bytes(1_000_000))
        assert [found(path) is not None for path in paths[:4]] == [True, False, True, True]
        write(paths[4], bytes(3_000_000))
        assert [found(path) is not None for path in paths] == [False, False, False, False, True]

    def test_too_large_for_it(self, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write(source)
        monkeypatch.setenv("QB_PACKED_LIMIT", str(len(PAYLOAD) - 1))
        assert not Kept(source, "vocabulary", "1").write(FACTS, [PAYLOAD])
        assert len(kept.entries()) == 1

    def test_nothing_is_kept_nor_read(self, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        one = write(source)
        monkeypatch.setenv("QB_PACKED_LIMIT", "0")
        assert found(source) is None
        assert not Kept(source, "weights", "1").write(FACTS, [b"new"])
        monkeypatch.delenv("QB_PACKED_LIMIT")
        assert found(one.source) == PAYLOAD

    @pytest.mark.parametrize("text", ["20GB", "-1", "1.5", "\u0663", "1" * 19, " "])
    def test_no_number(self, source: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
        monkeypatch.setenv("QB_PACKED_LIMIT", text)
        with pytest.raises(ValueError, match="QB_PACKED_LIMIT must be a number of bytes"):
            Kept(source, "weights", "1")


def test_it_waits_for_those_who_are_occupied_and_is_hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begun beside a text, the first text of a model was written at a third of its speed."""
    monkeypatch.setattr(kept, "LOOK", 0.01)
    occupied, begun = threading.Event(), threading.Event()
    occupied.set()
    done = kept.later(begun.set, occupied.is_set)
    assert not begun.wait(0.1)
    occupied.clear()
    assert done.wait(5)
    assert begun.is_set()

    occupied.set()
    begun.clear()
    kept.later(begun.set, occupied.is_set)
    assert not begun.wait(0.1)
    assert not kept.busy(5)
    assert begun.is_set()

    monkeypatch.setattr(kept, "LONGEST", 0.1)
    assert kept.later(lambda: None, occupied.is_set).wait(5)


class TestLater:
    @pytest.fixture(autouse=True)
    def fresh(self) -> Iterator[None]:
        kept._given_up.clear()
        yield
        kept._given_up.clear()

    def test_on_a_thread_that_is_waited_for(self, source: Path) -> None:
        one, seen = Kept(source, "weights", "1"), []
        kept.later(lambda: seen.append((threading.current_thread(), one.write(FACTS, [PAYLOAD]))))
        kept.finish()
        assert [(thread is threading.main_thread(), done) for thread, done in seen] == [(False, True)]
        assert not kept._running
        assert found(source) == PAYLOAD

    @pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority of their own; run on Linux")
    def test_the_thread_steps_back_and_nobody_else(self) -> None:
        seen: list[int] = []
        before = os.getpriority(os.PRIO_PROCESS, 0)
        kept.later(lambda: seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id())))
        kept.finish()
        assert seen == [max(kept.NICE, before)]
        assert os.getpriority(os.PRIO_PROCESS, 0) == before

    def test_the_process_waits(self, source: Path) -> None:
        code = f"""
import time
from pathlib import Path
from quickbrown.weights import kept
one = kept.Kept(Path({str(source)!r}), "weights", "1")
kept.later(lambda: (time.sleep(0.3), one.write({{}}, [b"abc"])))
"""
        subprocess.run([sys.executable, "-c", code], check=True)
        assert found(source) == b"abc"

    def test_given_up(self, source: Path, home: Path) -> None:
        started, go_on = threading.Event(), threading.Event()

        def work() -> None:
            started.set()
            go_on.wait()
            assert not Kept(source, "weights", "1").write(FACTS, [PAYLOAD])

        kept.later(work)
        started.wait()
        kept.give_up()
        go_on.set()
        kept.finish()
        assert lying(home) == []

    def test_ctrl_c_while_the_process_ends(self, source: Path, home: Path) -> None:
        """The writer would write for ever; one interrupt ends it and the process, and leaves no part."""
        code = f"""
import signal
from pathlib import Path
from quickbrown.weights import kept
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
copy = kept._copy
def endless(handle, views):
    print("writing", flush=True)
    while True:
        copy(handle, views)
kept._copy = endless
one = kept.Kept(Path({str(source)!r}), "weights", "1")
kept.later(lambda: one.write({{}}, [b"abc"]))
"""
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        assert "Traceback" not in process.communicate(timeout=20)[1]
        assert lying(home) == []

    def test_a_child_waits_for_nobody(self, source: Path) -> None:
        """Of threads, a fork has only the one that forked: waiting for others would never end."""
        code = f"""
import os, threading
from pathlib import Path
from quickbrown.weights import kept
go_on = threading.Event()
kept.later(go_on.wait)
if not (child := os.fork()):
    kept.finish()
    found = kept.Kept(Path({str(source)!r}), "weights", "1")
    os._exit(0 if found.write({{}}, [b"child"]) else 1)
_, status = os.waitpid(child, 0)
go_on.set()
raise SystemExit(os.waitstatus_to_exitcode(status))
"""
        subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=20)
        assert found(source) == b"child"


class TestLookingAfter:
    def test_what_is_good(self, source: Path) -> None:
        write(source)
        (entry,) = kept.entries()
        assert entry.description is not None
        assert (entry.description.source, entry.description.kind) == (str(source), "weights")
        assert len(PAYLOAD) <= entry.bytes <= len(PAYLOAD) + 3 * 4096  # the header's hole is none of the disk's
        assert not kept.stale(entry.description)
        assert kept.damage(entry) == ""

    def test_a_flipped_byte(self, source: Path) -> None:
        one = write(source)
        with open(one.path, "r+b") as file:
            file.seek(HEADER + 1234)
            byte = file.read(1)
            file.seek(HEADER + 1234)
            file.write(bytes([byte[0] ^ 1]))
        assert one.open() is not None  # a start does not read it all
        (entry,) = kept.entries()
        assert "are not those that were written" in kept.damage(entry)

    def test_a_flipped_byte_of_the_source(self, source: Path) -> None:
        write(source)
        before = source.stat()
        with open(source, "r+b") as file:
            file.seek(500)
            file.write(b"\1")
        os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
        (entry,) = kept.entries()
        assert entry.description is not None
        assert not kept.stale(entry.description)
        assert str(source) in kept.damage(entry)

    def test_stale(self, source: Path) -> None:
        write(source)
        source.unlink()
        (entry,) = kept.entries()
        assert entry.description is not None
        assert kept.stale(entry.description)

    def test_removed(self, source: Path, tmp_path: Path) -> None:
        other = tmp_path / "other.gguf"
        other.write_bytes(b"GGUF")
        write(source)
        write(source, kind="vocabulary")
        write(other)
        assert kept.remove(source) >= 2 * len(PAYLOAD)
        assert (found(source), found(other)) == (None, PAYLOAD)
        (kept.folder() / "junk.kept").write_bytes(b"junk")
        assert kept.remove() >= len(PAYLOAD)
        assert kept.remove() == 0
        assert kept.entries() == []


def test_importing_it_is_cheap() -> None:
    code = "import sys, numpy; import quickbrown.weights.source; before = set(sys.modules);"
    code += "import quickbrown.weights.kept; print(*(set(sys.modules) - before))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert set(loaded) <= {
        "_blake2", "_hashlib", "_sha2", "_sha512", "_sha256", "atexit", "fcntl", "hashlib", "mmap",
        "quickbrown.weights.hub", "quickbrown.weights.kept", "threading",
    }  # fmt: skip
