"""Names like "org/name": what is fetched from the Hub, where it is kept, and what is said when it cannot be had."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import hub_server
from checkpoints import CHAT, write_checkpoint
from hub_server import Hub, commit, serve
from quickbrown.weights import hub
from quickbrown.weights.hub import HubError, part_names
from quickbrown.weights.safetensors import SafetensorsSource

NAME = "mistralai/Mistral-7B-v0.1"
SETTINGS = ["config.json", "generation_config.json"]
TOKENIZER = ["chat_template.jinja", "tokenizer.json", "tokenizer_config.json"]
SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="module")
def repositories(tmp_path_factory) -> dict[str, dict[str, Path]]:
    root = tmp_path_factory.mktemp("repositories")
    main = write_checkpoint(root / "main", shards=2, chat_template=CHAT)
    for name in ("pytorch_model.bin", "consolidated.safetensors", "README.md", "onnx/model.onnx", "tokenizer.model"):
        (main / name).parent.mkdir(exist_ok=True)
        (main / name).write_bytes(b"not wanted")
    small = write_checkpoint(root / "small", seed=1)
    write_checkpoint(small / "inner", seed=2)
    (small / "a.Q4_1.gguf").write_bytes(b"GGUF and so on")
    pickled = write_checkpoint(root / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    bare = root / "bare"
    bare.mkdir()
    (bare / "a.gguf").write_bytes(b"GGUF")
    older = write_checkpoint(root / "older", tokenizer=None)
    (older / "tokenizer.model").write_bytes(b"wanted")
    (bare / "in").mkdir()
    for name in [*part_names("b-00001-of-00003.gguf"), "c-00001-of-00002.gguf"]:
        (bare / "in" / name).write_bytes(b"GGUF" + name.encode())
    evil = write_checkpoint(root / "evil", shards=2)
    (evil / INDEX).write_text(json.dumps({"weight_map": {"x": "../../x.safetensors"}}))
    return {
        NAME: {"main": main, "v2": small},
        "a/small": {"main": small},
        "a/pickled": {"main": pickled},
        "a/bare": {"main": bare},
        "a/older": {"main": older},
        "a/evil": {"main": evil},
        "a/gated": {"main": small},
        "a/private": {"main": small},
    }


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def served(repositories, cache, monkeypatch) -> Iterator[Hub]:
    with serve(repositories, {"a/gated": "good", "a/private": "good"}, gated=("a/gated",)) as found:
        hub_server.use(found, cache, monkeypatch)
        yield found


def inside(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def refused(sentence: str, name: str = NAME, **options: Any) -> None:
    with pytest.raises(HubError) as caught:
        hub.locate(name, **options)
    said = str(caught.value)
    assert sentence in said
    assert said.endswith((".", "?"))
    assert "\n" not in said


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ("model", [*TOKENIZER, *SETTINGS, *SHARDS, INDEX]),
        ("tokenizer", [*TOKENIZER, *SETTINGS]),
        ("config", SETTINGS),
    ],
)
def test_only_what_is_read_is_fetched(served, files, expected):
    """A repository often holds the weights three times: pickled, for another program, and for a third."""
    folder = hub.locate(NAME, files=files)
    assert inside(folder) == served.fetched() == sorted(expected)


@pytest.mark.parametrize(("files", "has"), [("model", True), ("tokenizer", True), ("config", False)])
def test_other_vocabularies_are_fetched_where_there_is_no_tokenizer_json(served, files, has):
    folder = hub.locate("a/older", files=files)
    assert ("tokenizer.model" in inside(folder)) == has
    assert hub.locate("a/older", files=files, local_files_only=True) == folder


def test_the_cache_is_that_of_huggingface_hub(served, repositories, cache):
    folder = hub.locate(NAME)
    sha = commit(repositories[NAME]["main"])
    assert folder == cache / "models--mistralai--Mistral-7B-v0.1" / "snapshots" / sha
    assert (cache / "models--mistralai--Mistral-7B-v0.1" / "refs" / "main").read_text() == sha
    assert len(list((cache / "models--mistralai--Mistral-7B-v0.1" / "blobs").iterdir())) == len(inside(folder))
    assert SafetensorsSource(folder).config["model_type"] == "mistral"
    from huggingface_hub import snapshot_download

    assert snapshot_download(NAME, local_files_only=True, allow_patterns=["*.json"]) == str(folder)


def test_what_is_here_is_not_fetched_again(served, monkeypatch):
    folder = hub.locate(NAME)
    before = served.fetched()
    assert hub.locate(NAME) == hub.locate(NAME, files="tokenizer") == folder
    assert served.fetched() == before
    served.asked.clear()
    assert hub.locate(NAME, local_files_only=True) == folder
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert hub.locate(NAME) == folder
    assert served.asked == []


def test_what_is_here_works_without_a_network(served, monkeypatch):
    folder = hub.locate(NAME)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert hub.locate(NAME) == folder
    served.broken = 503
    monkeypatch.setenv("HF_ENDPOINT", served.url)
    assert hub.locate(NAME) == folder


def test_fetched_again_by_force(served):
    hub.locate(NAME)
    before = served.fetched()
    hub.locate(NAME, force_download=True)
    assert served.fetched() == sorted(2 * before)


def test_a_tokenizer_alone_is_no_model(served):
    """Half of a model in the cache must not pass for one when nothing can be fetched."""
    hub.locate(NAME, files="tokenizer")
    refused("is not whole in", local_files_only=True)
    assert hub.locate(NAME, files="config", local_files_only=True).is_dir()


@pytest.mark.parametrize("revision", ["v2", None])
def test_revisions(served, repositories, revision):
    folder = repositories[NAME][revision or "main"]
    for asked in (revision, commit(folder)):
        found = hub.locate(NAME, revision=asked)
        assert (found / "config.json").read_bytes() == (folder / "config.json").read_bytes()
        assert found.name == commit(folder)
    assert hub.locate(NAME, revision=revision, local_files_only=True) == found


def test_another_cache(served, tmp_path, cache):
    folder = hub.locate(NAME, files="config", cache_dir=tmp_path / "other")
    assert folder.is_relative_to(tmp_path / "other")
    assert not cache.exists()


def test_a_subfolder(served, repositories):
    folder = hub.locate("a/small", subfolder="inner")
    assert folder.name == "inner"
    assert (folder / "model.safetensors").read_bytes() != (
        repositories["a/small"]["main"] / "model.safetensors"
    ).read_bytes()
    assert all(name.startswith("inner/") for name in served.fetched())
    SafetensorsSource(folder)
    refused("a/small has no absent/config.json", "a/small", subfolder="absent")
    refused("subfolder must be a path inside", "a/small", subfolder="../other")


def test_a_gguf_file(served):
    path = hub.locate("a/small", gguf_file="a.Q4_1.gguf")
    assert path.read_bytes() == b"GGUF and so on"
    assert served.fetched() == ["a.Q4_1.gguf"]
    assert hub.locate("a/small", gguf_file="a.Q4_1.gguf", files="tokenizer", local_files_only=True) == path
    refused("a/small has no file b.gguf", "a/small", gguf_file="b.gguf")


def test_parts_of_a_gguf_file_come_together(served):
    path = hub.locate("a/bare", gguf_file="in/b-00002-of-00003.gguf")
    parts = part_names(path.name)
    assert served.fetched() == [f"in/{part}" for part in parts]
    assert sorted(other.name for other in path.parent.iterdir()) == parts
    assert hub.locate("a/bare", subfolder="in", gguf_file=path.name, local_files_only=True) == path
    refused("a/bare has no file in/c-00002-of-00002.gguf", "a/bare", gguf_file="in/c-00001-of-00002.gguf")


def test_repositories_without_the_files(served):
    refused("a/bare has no config.json; if it has GGUF files, name one of them with gguf_file=", "a/bare")
    refused("a/bare has none of the files config.json", "a/bare", files="tokenizer")


def test_tokens(served, monkeypatch):
    for name in ("a/gated", "a/private"):
        said = "a/gated is gated: ask for access" if name == "a/gated" else "no model of that name at 127.0.0.1"
        refused(said, name)
        refused("set HF_TOKEN", name, token=False)
        refused(said, name, token="bad")
        monkeypatch.setenv("HF_TOKEN", "bad")
        refused(said, name)
        assert hub.locate(name, token="good").is_dir()
        monkeypatch.setenv("HF_TOKEN", "good")
        assert hub.locate(name, force_download=True).is_dir()
        monkeypatch.delenv("HF_TOKEN")


def test_what_cannot_be_had(served, cache, monkeypatch):
    refused("there is no folder a/smol here and no model of that name at 127.0.0.1", "a/smol")
    refused("Did you mean smollm2-135m?", "HuggingFaceTB/smollm2_135m")
    refused("mistralai/Mistral-7B-v0.1 has no revision 'v9'", revision="v9")
    refused("'../../x' is no revision", revision="../../x")
    refused("a/pickled has no model.safetensors; weights in other files, such as pickled ones", "a/pickled")
    refused("only plain names of .safetensors files are read", "a/evil")
    assert not any("x.safetensors" in line for line in served.asked)
    refused(f"a/new is not whole in {cache}, and nothing is fetched because", "a/new", local_files_only=True)
    served.broken = 503
    refused("a/new cannot be fetched: 127.0.0.1", "a/new")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    refused(f"a/new is not whole in {cache}, and 127.0.0.1:9 cannot be reached", "a/new")
    monkeypatch.setenv("HF_HUB_OFFLINE", "yes")
    refused("nothing is fetched because local_files_only or HF_HUB_OFFLINE says so", "a/new")


@pytest.mark.parametrize("name", ["./a/b", "/a/b", "a/b/c", "../b", "a/..", "a/b.gguf", "a//b", "a/b?x"])
def test_what_is_no_name_is_a_path(served, name):
    refused(f"there is no file {name}", name)
    assert served.asked == []


def test_a_folder_of_that_name_comes_first(served, tmp_path, monkeypatch, repositories):
    monkeypatch.chdir(tmp_path)
    write_checkpoint(Path(NAME))
    assert hub.locate(NAME) == Path(NAME)
    assert served.asked == []


def test_a_cache_that_cannot_be_written(served, tmp_path):
    (tmp_path / "file").write_text("")
    refused("cannot be kept in", cache_dir=tmp_path / "file")


def test_progress_is_told_and_nothing_is_printed(served, capfd):
    told: list[tuple[str, int, int]] = []
    hub.locate(NAME, progress=lambda *what: told.append(what))
    assert capfd.readouterr() == ("", "")
    assert told[-1][0] == "downloading"
    assert told[-1][1] == sum(path.stat().st_size for path in set(hub.locate(NAME).glob("*.safetensors")))


def test_nothing_is_printed_without_a_terminal(served, capfd):
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled

    hub.locate(NAME)
    assert capfd.readouterr() == ("", "")
    assert not are_progress_bars_disabled()


def test_the_library_is_loaded_for_names_alone(served, tmp_path):
    """It takes a third of a second to import."""
    write_checkpoint(tmp_path / "m")
    code = "import sys; from quickbrown.weights import hub; hub.locate(sys.argv[1])"
    code += "; print('huggingface_hub' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    for name, expected in ((str(tmp_path / "m"), "False"), (NAME, "True")):
        done = subprocess.run([sys.executable, "-c", code, name], env=environment, capture_output=True, text=True)
        assert done.stdout.strip() == expected, done.stderr
