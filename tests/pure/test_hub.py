"""Pulling models: whole or not at all, whatever happens half-way."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from quickbrown.weights import hub
from quickbrown.weights.hub import HubError, Model

CONTENT = b"GGUF" + bytes(range(256)) * 4000


@pytest.fixture
def wheel(tmp_path) -> Path:
    """A wheel that pip accepts."""
    path = tmp_path / "index" / "qb_toy-1.0-py3-none-any.whl"
    path.parent.mkdir()
    info = "qb_toy-1.0.dist-info/"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("qb_toy/toy.gguf", CONTENT)
        archive.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: qb-toy\nVersion: 1.0\n")
        archive.writestr(info + "WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(info + "RECORD", "")
    return path


@pytest.fixture
def toy(wheel, tmp_path, monkeypatch) -> Model:
    """A catalogue of one small model, an empty home, and a fetch that copies its wheel."""
    model = Model(
        name="toy",
        description="a toy",
        license="CC0",
        package="qb-toy",
        version="1.0",
        wheel=wheel.name,
        wheel_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        wheel_bytes=wheel.stat().st_size,
        member="qb_toy/toy.gguf",
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        bytes=len(CONTENT),
    )
    use(model, monkeypatch)
    monkeypatch.setenv("QB_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(hub, "fetch", lambda model, folder, tell: Path(shutil.copy(wheel, folder)))
    return model


def use(model: Model, monkeypatch) -> None:
    monkeypatch.setattr(hub, "catalogue", lambda: {model.name: model})


def refused(sentence: str, name: str = "toy") -> None:
    with pytest.raises(HubError) as caught:
        hub.locate(name)
    said = str(caught.value)
    assert sentence in said
    assert said.endswith(".")
    assert "\n" not in said


def kept(model: Model) -> set[str]:
    return {path.name for path in model.path.parent.iterdir()} - {".lock"}


def test_the_catalogue_is_sound():
    for name, model in hub.catalogue().items():
        assert name == model.name == name.lower()
        assert len(model.sha256) == len(model.wheel_sha256) == 64
        assert model.member.endswith(".gguf")
        assert model.path.parent.name == name
        assert ".." not in model.member
    assert "smollm2-135m" in hub.catalogue()
    assert [model.name for model in hub.listing()] == list(hub.catalogue())


def test_importing_is_light():
    heavy = {"subprocess", "filelock", "platformdirs", "hashlib", "tempfile", "zipfile", "rich", "numpy"}
    load = "import sys; before = set(sys.modules); import quickbrown.weights.hub"
    code = f"{load}; print(sorted({heavy!r} & (sys.modules.keys() - before)))"
    done = subprocess.run([sys.executable, "-c", code], env=child_environment(), capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_pull_locate_remove(toy, tmp_path):
    stages = []
    assert not toy.present
    path = hub.locate("toy", progress=lambda *what: stages.append(what))
    assert path == toy.path == tmp_path / "home" / "models" / "toy" / "toy.gguf"
    assert path.read_bytes() == CONTENT
    assert toy.present
    assert kept(toy) == {"toy.gguf"}
    assert stages[-1] == ("unpacking", toy.bytes, toy.bytes)
    assert {stage for stage, _, _ in stages} == {"verifying", "unpacking"}
    assert hub.remove("toy") is True
    assert hub.remove("toy") is False
    assert not toy.present


def test_offline_once_present(toy, monkeypatch):
    path = hub.pull("toy")
    monkeypatch.setattr(hub, "fetch", lambda *_: pytest.fail("fetched again"))
    monkeypatch.setattr(hub, "_lock", lambda *_: pytest.fail("locked"))
    assert hub.locate("toy") == path


def test_home(monkeypatch, tmp_path):
    monkeypatch.setenv("QB_HOME", str(tmp_path / "x"))
    assert hub.home() == tmp_path / "x"
    monkeypatch.setenv("QB_HOME", "relative")
    assert hub.home().is_absolute()
    monkeypatch.delenv("QB_HOME")
    assert "quickbrown" in str(hub.home())


def test_paths(toy, tmp_path):
    file = tmp_path / "my.gguf"
    file.write_bytes(CONTENT)
    assert hub.locate(str(file)) == hub.locate(file) == file
    (tmp_path / "x.bin").write_bytes(b"PK\3\4")
    refused("is not a GGUF file", str(tmp_path / "x.bin"))
    refused("there is no file", str(tmp_path / "absent"))
    refused("there is no file absent.gguf", "absent.gguf")
    refused("there is no model 'a\\x00b'", "a\0b")
    refused("cannot be read: File name too long", "a" * 5000)


def test_folders(tmp_path):
    def located(**options):
        path = hub.locate(tmp_path / "m", **options)
        return path.relative_to(tmp_path).as_posix()

    folder = tmp_path / "m"
    folder.mkdir()
    refused(f"{folder} has neither config.json nor a GGUF file", str(folder))
    (folder / "a.gguf").write_bytes(CONTENT)
    assert located() == located(files="tokenizer") == located(files="config") == "m/a.gguf"
    (folder / "b.gguf").write_bytes(CONTENT)
    refused(f"{folder} has 2 GGUF files (a.gguf, b.gguf); name the one that is meant", str(folder))
    assert located(gguf_file="b.gguf") == "m/b.gguf"
    (folder / "config.json").write_text("{}")
    assert located() == located(files="tokenizer") == located(files="config") == "m"
    assert located(gguf_file="b.gguf") == "m/b.gguf"
    (folder / "parts").mkdir()
    (folder / "parts" / "c.gguf").write_bytes(CONTENT)
    assert located(subfolder="parts") == located(subfolder="/parts/") == "m/parts/c.gguf"
    assert located(gguf_file="parts/c.gguf") == "m/parts/c.gguf"
    for options, sentence in (
        ({"gguf_file": "absent.gguf"}, "there is no file"),
        ({"gguf_file": "config.json"}, "is not a GGUF file"),
        ({"subfolder": "absent"}, "there is no folder"),
        ({"subfolder": "../m"}, "subfolder must be a path inside the model's folder"),
        ({"gguf_file": "/etc/passwd"}, "gguf_file must be a path inside the model's folder"),
        ({"gguf_file": "../m/a.gguf"}, "gguf_file must be a path inside the model's folder"),
        ({"gguf_file": "*.gguf"}, "gguf_file must be a path inside the model's folder"),
    ):
        with pytest.raises(HubError) as caught:
            located(**options)
        assert sentence in str(caught.value)


def test_parts_of_a_file_are_one(tmp_path):
    names = hub.part_names("m-00002-of-00003.gguf")
    assert names == ["m-00001-of-00003.gguf", "m-00002-of-00003.gguf", "m-00003-of-00003.gguf"]
    for alone in ("m.gguf", "m-00000-of-00003.gguf", "m-00004-of-00003.gguf", "m-1-of-3.gguf", "m-00001-of-99999.gguf"):
        assert hub.part_names(alone) == [alone]
    for name in names:
        (tmp_path / name).write_bytes(CONTENT)
    assert hub.locate(tmp_path) == tmp_path / names[0]
    assert hub.locate(tmp_path / names[2]) == tmp_path / names[2]
    (tmp_path / names[0]).unlink()
    refused(f"has 2 GGUF files ({names[1]}, {names[2]})", str(tmp_path))


def test_a_folder_of_a_tokenizer_alone(tmp_path):
    """`save_pretrained` of a tokenizer or a generation config writes no config.json."""
    (tmp_path / "tokenizer.json").write_text("{}")
    assert hub.locate(tmp_path, files="tokenizer") == tmp_path
    refused("has neither config.json nor a GGUF file", str(tmp_path))
    (tmp_path / "a.gguf").write_bytes(CONTENT)
    assert hub.locate(tmp_path, files="tokenizer") == tmp_path
    assert hub.locate(tmp_path) == tmp_path / "a.gguf"


def test_options_of_a_known_name(toy, monkeypatch):
    for options, sentence in (
        ({"revision": "v2"}, "toy is one file and has no revision; leave revision='v2' out"),
        ({"subfolder": "x"}, "toy is one file and has no subfolder"),
        ({"gguf_file": "x.gguf"}, "toy is one file and has no gguf_file"),
        ({"local_files_only": True}, "toy is not here, and nothing is fetched because local_files_only says so"),
    ):
        with pytest.raises(HubError) as caught:
            hub.locate("toy", **options)
        assert sentence in str(caught.value)
    path = hub.locate("toy", revision="main")
    path.write_bytes(CONTENT[::-1])
    assert hub.locate("toy", local_files_only=True, files="tokenizer").read_bytes() == CONTENT[::-1]
    assert hub.locate("toy", force_download=True).read_bytes() == CONTENT


def test_unknown_names(toy, monkeypatch):
    refused(
        "there is no model 'toi'; did you mean toy? Names on the Hugging Face Hub are like org/name, and the", "toi"
    )
    refused("there is no model 'llama'; known models: toy. Names on", "llama")
    refused("did you mean toy?", "TOY")
    for call in (hub.pull, hub.remove):
        with pytest.raises(HubError, match="there is no model"):
            call("llama")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"wheel_sha256": "0" * 64}, "download of toy is not the published file"),
        ({"wheel_bytes": 10}, "download of toy is not the published file"),
        ({"sha256": "0" * 64}, "file of toy is not the published one"),
        ({"bytes": 100}, "file of toy is not the published one"),
        ({"bytes": len(CONTENT) + 1}, "file of toy is not the published one"),
        ({"member": "qb_toy/other.gguf"}, "cannot be unpacked"),
    ],
)
def test_what_is_not_the_published_file_is_not_kept(toy, monkeypatch, change, sentence):
    use(dataclasses.replace(toy, **change), monkeypatch)
    refused(sentence)
    assert kept(toy) == set()


def test_a_file_of_another_size_is_fetched_again(toy):
    path = hub.pull("toy")
    path.write_bytes(CONTENT[:100])
    assert hub.locate("toy").read_bytes() == CONTENT


def test_a_full_disk(toy, monkeypatch):
    usage = shutil.disk_usage("/")._replace(free=1000)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda folder: usage)
        refused("the disk is full: toy needs")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(hub, "_copy", full)
        refused("the disk is full: toy needs")
    assert kept(toy) == set()
    hub.pull("toy")


def test_a_home_that_cannot_be_written(toy, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("QB_HOME", str(tmp_path / "file"))
    refused("toy cannot be kept in")


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("WARNING: Retrying ... NewConnectionError('Failed to establish a new connection')\n"
         "ERROR: No matching distribution found for qb-toy==1.0", "no connection to the package index"),
        ("ERROR: Could not find a version that satisfies the requirement\nERROR: No matching distribution found",
         "no package index here has qb-toy 1.0"),
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "the disk is full"),
        ("noise\nERROR: 403 Client Error: Forbidden.\nnoise", "pip failed (403 Client Error: Forbidden)"),
        ("", "pip failed (it said nothing)"),
    ],
)  # fmt: skip
def test_what_pip_says_becomes_one_sentence(toy, said, sentence):
    with pytest.raises(HubError) as caught:
        hub._failed(toy, said)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_pip(toy, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    found: dict[str, str] = {"uv": "/bin/uv", "pip3": "/bin/pip3"}
    monkeypatch.setattr(shutil, "which", found.get)
    assert hub._pip() == ["/bin/pip3"]
    del found["pip3"]
    assert hub._pip() == ["/bin/uv", "tool", "run", "pip"]
    found.clear()
    with pytest.raises(HubError, match=r"type: .* -m ensurepip"):
        hub._pip()


needs_pip = pytest.mark.skipif(importlib.util.find_spec("pip") is None, reason="pip fetches; install pip to run this")
real_fetch = hub.fetch


@needs_pip
def test_the_real_pip(toy, wheel, monkeypatch, tmp_path):
    monkeypatch.setattr(hub, "fetch", real_fetch)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    refused("no package index here has qb-toy 1.0")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    stages = []
    assert hub.pull("toy", lambda *what: stages.append(what)).read_bytes() == CONTENT
    assert stages[0] == ("downloading", 0, toy.wheel_bytes)
    assert kept(toy) == {"toy.gguf"}


CHILD = """
import json, shutil, sys, time
from pathlib import Path
from quickbrown.weights import hub

model = hub.Model(**json.loads(sys.argv[1]))
wheel, behaviour, log = Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
hub.catalogue = lambda: {model.name: model}

def fetch(model, folder, tell):
    with open(log, "a") as file:
        file.write("fetch\\n")
    half = wheel.read_bytes()[: wheel.stat().st_size // 2]
    (folder / wheel.name).write_bytes(half)
    print("half", flush=True)
    time.sleep(60 if behaviour == "hang" else 1)
    return Path(shutil.copy(wheel, folder / wheel.name))

hub.fetch = fetch
stages = set()
print(hub.pull("toy", lambda stage, done, total: stages.add(stage)), *sorted(stages))
"""


def child_environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}


def child(toy: Model, wheel: Path, behaviour: str, log: Path) -> subprocess.Popen[str]:
    row = json.dumps(dataclasses.asdict(toy))
    command = [sys.executable, "-c", CHILD, row, str(wheel), behaviour, str(log)]
    return subprocess.Popen(command, env=child_environment(), stdout=subprocess.PIPE, text=True)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL, which Unix has")
def test_killed_half_way(toy, wheel, tmp_path):
    """The next pull removes what the killed one left, and nothing else."""
    with child(toy, wheel, "hang", tmp_path / "log") as process:
        assert process.stdout.readline() == "half\n"
        process.send_signal(signal.SIGKILL)
    [leftover] = kept(toy)
    assert leftover.startswith(".pull-")
    assert not toy.present
    folder = toy.path.parent
    (folder / "mine").mkdir()
    (folder / "mine" / "notes.txt").write_text("keep")
    (folder / ".pull-request").write_text("a file is no leftover")
    (folder / ".pull-link").symlink_to(folder / "mine")
    assert hub.locate("toy").read_bytes() == CONTENT
    assert kept(toy) == {"toy.gguf", "mine", ".pull-request", ".pull-link"}
    assert (folder / "mine" / "notes.txt").read_text() == "keep"


def test_two_at_once(toy, wheel, tmp_path):
    """One fetches, the other waits and finds it there."""
    log = tmp_path / "log"
    with child(toy, wheel, "slow", log) as first:
        assert first.stdout.readline() == "half\n"
        with child(toy, wheel, "slow", log) as second:
            said = [first.stdout.read().split(), second.stdout.read().split()]
    assert said == [[str(toy.path), "unpacking", "verifying"], [str(toy.path), "waiting", "for", "another", "pull"]]
    assert log.read_text() == "fetch\n"
    assert toy.path.read_bytes() == CONTENT
    assert kept(toy) == {"toy.gguf"}
