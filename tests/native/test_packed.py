"""Packed weights that are kept: mapped by the next start, the same to the byte, and never those of another model."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from checkpoints import write_checkpoint
from gguf_writer import tiny_llama, write_gguf, write_tiny_llama
from quickbrown import LLM, _native
from quickbrown.backends.native.compile import PackedWeights
from quickbrown.quant.formats import FORMATS
from quickbrown.weights import kept
from quickbrown.weights.kept import HEADER

IDS = [1, 50, 60, 70, 80]
WIDE = {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 8}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("QB_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("QB_PACKED_LIMIT")
    return tmp_path / "home"


@pytest.fixture
def path(tmp_path):
    return write_tiny_llama(tmp_path / "m.gguf", "q4_1", num_hidden_layers=3, **WIDE)


def start(path, **options):
    """A model, loaded, and what it may keep kept."""
    llm = LLM(path, memory="8MB", **options)
    llm.close()
    return llm


def loaded(path, **options):
    """Whether a start maps, and the logits that it gives."""
    llm = LLM(path, memory="8MB", **options)
    logits = llm.logits(IDS)
    llm.close()
    return llm.runner.weights.mapped, logits


def refuse(*args):
    raise AssertionError("the weights are packed anew")


class TestSecondStart:
    @pytest.mark.parametrize("format", ["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1"])
    def test_it_maps_and_gives_the_same(self, tmp_path, monkeypatch, format):
        path = write_tiny_llama(tmp_path / "m.gguf", format, num_hidden_layers=9, **WIDE)
        first = loaded(path)
        monkeypatch.setattr(PackedWeights, "_fill", refuse)
        second = loaded(path)
        assert (first[0], second[0]) == (False, True)
        assert (first[1] == second[1]).all()
        with pytest.raises(AssertionError, match="packed anew"):
            LLM(path, memory="8MB", dtype="float32")

    def test_parts_of_a_file(self, tmp_path, monkeypatch):
        """Any of them may be named; a change of any of them is seen."""
        metadata, tensors = tiny_llama("q4_1", num_hidden_layers=9, **WIDE)
        names, paths = list(tensors), [tmp_path / f"m[1]-0000{i}-of-00002.gguf" for i in (1, 2)]
        for i, (path, part) in enumerate(zip(paths, (names[:20], names[20:]), strict=True)):
            said = {"split.no": i, "split.count": 2, "split.tensors.count": len(names)}
            write_gguf(path, (metadata if i == 0 else {}) | said, {name: tensors[name] for name in part})
        whole = loaded(write_gguf(tmp_path / "m.gguf", metadata, tensors))[1]
        first, second = loaded(paths[1]), loaded(paths[0])
        assert (first[0], second[0]) == (False, True)
        assert (first[1] == whole).all()
        assert (second[1] == whole).all()
        os.utime(paths[1], ns=(1, 1))
        assert not loaded(paths[0])[0]

    @pytest.mark.parametrize("model_type", ["llama", "mistral", "qwen2", "qwen3"])
    @pytest.mark.parametrize("tied", [True, False])
    def test_folders(self, tmp_path, monkeypatch, model_type, tied):
        """With biases, norms of heads, and a head of its own or not."""
        kind = {"model_type": model_type, "dtype": "bf16", "tokenizer": None, "tie_word_embeddings": tied}
        path = write_checkpoint(tmp_path / "folder", shards=3, **kind, **WIDE)
        first = loaded(path)
        monkeypatch.setattr(PackedWeights, "_fill", refuse)
        second = loaded(path)
        assert (first[0], second[0]) == (False, True)
        assert (first[1] == second[1]).all()

    @pytest.mark.parametrize("options", [{"quantize": "q4"}, {"quantize": "nf4"}, {"dtype": "bfloat16"}])
    def test_encoded_anew(self, tmp_path, monkeypatch, options):
        """What is held in another format has a place of its own: two ways to load one model do not drive each other
        out."""
        path = write_checkpoint(tmp_path / "folder", model_type="llama", tokenizer=None, num_hidden_layers=5, **WIDE)
        plain, small = loaded(path), loaded(path, **options)
        assert (plain[1] != small[1]).any()
        monkeypatch.setattr(PackedWeights, "_fill", refuse)
        for before, after in ((plain, loaded(path)), (small, loaded(path, **options))):
            assert (before[0], after[0]) == (False, True)
            assert (before[1] == after[1]).all()

    def test_nothing_of_the_weights_is_read(self, path, monkeypatch):
        """Their pages are not even looked at: a source whose bytes are gone gives the same logits."""
        _, expected = loaded(path)
        before = path.stat()
        source = LLM(path, memory="8MB").source
        with open(path, "r+b") as file:
            for tensor in source._weights.values():
                file.seek(tensor.at)
                file.write(bytes(tensor.bytes))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert (loaded(path)[1] == expected).all()

    def test_it_can_be_made_anew_from_another_model(self, path):
        """A model put in the place of another, as a pull does: another inode, size or time, so nothing old is used."""
        start(path)
        other = write_tiny_llama(path.with_name("other.gguf"), "q4_1", num_hidden_layers=3, seed=1, **WIDE)
        os.replace(other, path)
        mapped, logits = loaded(path)
        assert not mapped
        assert loaded(path)[0]
        assert (loaded(path)[1] == logits).all()

    def test_threads_and_batches_do_not_matter(self, path):
        one = start(path)
        mapped, logits = loaded(path, threads=1)
        assert mapped
        assert (logits == loaded(path, threads=3)[1]).all()
        assert one.runner.weights.keep()

    def test_other_weights_at_the_same_place(self, path):
        """The signature, not the place, says whether a kept file fits: here the model's formats are others, as they
        are after a change of this program that holds a weight in another way."""
        llm = start(path)
        weights = llm.runner.weights
        assert weights._kept.write(weights._facts | {"signature": "other"}, [weights.arena.packed()])
        assert not loaded(path)[0]
        assert loaded(path)[0]

    @pytest.mark.parametrize("change", [-64, 64])
    def test_too_small_or_too_large(self, path, change):
        llm = start(path)
        weights = llm.runner.weights
        packed = weights.arena.packed()
        other = packed[:change] if change < 0 else np.append(packed, np.zeros(change, np.uint8))
        assert weights._kept.write(weights._facts, [other])
        assert not loaded(path)[0]
        assert loaded(path)[0]


class TestNotKept:
    def test_small_models_and_comparisons(self, tmp_path, path, home):
        start(write_tiny_llama(tmp_path / "tiny.gguf"))
        start(path, dtype="float32")
        assert not home.exists()

    def test_when_nothing_shall_be(self, path, home, monkeypatch):
        monkeypatch.setenv("QB_PACKED_LIMIT", "0")
        start(path)
        assert not home.exists()

    def test_where_it_cannot_be_written(self, path, home, monkeypatch):
        monkeypatch.setenv("QB_HOME", "/proc/none")
        assert not loaded(path)[0]
        assert not loaded(path)[0]

    def test_a_limit_that_is_no_number(self, path, monkeypatch):
        monkeypatch.setenv("QB_PACKED_LIMIT", "much")
        with pytest.raises(ValueError, match="QB_PACKED_LIMIT must be a number of bytes"):
            LLM(path)


class TestInUse:
    def test_replaced_and_removed_while_mapped(self, path):
        _, expected = loaded(path)
        llm = LLM(path, memory="8MB")
        assert llm.runner.weights.mapped
        weights = llm.runner.weights
        assert weights._kept.write(weights._facts, [np.zeros_like(weights.arena.packed())])
        assert (llm.logits(IDS) == expected).all()
        kept.remove()
        assert (llm.logits(IDS) == expected).all()

    def test_the_mapping_lives_as_long_as_the_weights(self, path):
        start(path)
        llm = LLM(path, memory="8MB")
        expected = llm.logits(IDS)
        packed = llm.runner.weights.arena.packed()
        digest = hashlib.sha256(packed).digest()
        assert (llm.logits(IDS) == expected).all()
        llm.close()
        del llm
        assert hashlib.sha256(packed).digest() == digest

    def test_a_child_of_a_fork_loads_it(self, path):
        code = f"""
import os
from quickbrown import LLM
llm = LLM({str(path)!r}, memory="8MB")
if not (child := os.fork()):
    llm.close()
    other = LLM({str(path)!r}, memory="8MB")
    os._exit(0 if other.logits({IDS}).shape[0] == {len(IDS)} else 1)
_, status = os.waitpid(child, 0)
raise SystemExit(os.waitstatus_to_exitcode(status))
"""
        subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=60)
        assert loaded(path)[0]

    def test_processes_that_start_together(self, path, home):
        code = f"""
import sys
from quickbrown import LLM
sys.stdin.readline()
for _ in range(3):
    llm = LLM({str(path)!r}, memory="8MB")
    print(hash(llm.logits({IDS}).tobytes()))
    llm.close()
"""
        environment = os.environ | {"PYTHONHASHSEED": "0"}
        starts = [
            subprocess.Popen(
                [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
            )
            for _ in range(4)
        ]
        for process in starts:
            process.stdin.write("\n")
            process.stdin.flush()
        printed = [process.communicate(timeout=100)[0].split() for process in starts]
        assert all(process.returncode == 0 for process in starts)
        assert [len(lines) for lines in printed] == [3] * 4
        assert len({line for lines in printed for line in lines}) == 1
        assert [file.suffix for file in (home / "packed").iterdir()] == [".kept"]
        assert loaded(path)[0]

    def test_interrupted_qb_does_not_wait(self, path, home):
        """A writer that would never end: Ctrl-C in the middle of the text ends both, at once."""
        code = f"""
import signal, sys
from quickbrown.cli import main
from quickbrown.weights import kept
copy = kept._copy
def endless(handle, views):
    print("writing", file=sys.stderr, flush=True)
    while True:
        copy(handle, views)
kept._copy = endless
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
sys.argv = ["qb", "generate", "-m", {str(path)!r}, "hello", "--max-new-tokens", "250", "--ignore-eos"]
main.main()
"""
        process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        while process.stderr.readline() != b"writing\n":
            pass
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert b"Traceback" not in process.communicate(timeout=60)[1]
        assert list((home / "packed").iterdir()) == []

    def test_qb_says_what_it_waits_for(self, path, home):
        """After a text, a writer that never ends: it is said, and Ctrl-C ends the process as a success."""
        code = f"""
import signal, sys
from quickbrown.cli import main
from quickbrown.weights import kept
copy = kept._copy
def endless(handle, views):
    while True:
        copy(handle, views)
kept._copy = endless
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
sys.argv = ["qb", "generate", "-m", {str(path)!r}, "hello", "--max-new-tokens", "2"]
main.main()
"""
        process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        assert process.stderr.readline().startswith(b"keeping the packed weights")
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60)[1] == b""
        assert process.returncode == 0
        assert list((home / "packed").iterdir()) == []


class TestArena:
    def test_nothing_can_be_filled(self):
        pool = _native.Pool(1)
        own = _native.Weights(4096, pool)
        own.add("f32", 4, [np.arange(16, dtype=np.float32).reshape(4, 4).view(np.uint8)])
        own.add_vector(np.ones(5, np.float32))
        bytes = own.packed().copy()
        aligned = np.zeros(len(bytes) + 64, np.uint8)
        aligned = aligned[-aligned.ctypes.data % 64 :][: len(bytes)]
        aligned[:] = bytes
        other = _native.Weights(aligned, pool)
        other.reserve("f32", 4, 4, 1)
        other.reserve_vector(5)
        assert (other.packed() == own.packed()).all()
        for fill in (
            lambda: other.fill(0, 0, np.zeros((4, 16), np.uint8)),
            lambda: other.fill_vector(0, np.zeros(5, np.float32)),
        ):
            with pytest.raises(ValueError, match="stand on what others have packed"):
                fill()
        for more in (lambda: other.reserve("f32", 4, 4, 1), lambda: other.reserve_vector(1)):
            with pytest.raises(ValueError, match="more room than was set aside"):
                more()
        assert (aligned == bytes).all()

    def test_where_it_may_lie(self):
        pool = _native.Pool(1)
        room = np.zeros(256, np.uint8)
        with pytest.raises(ValueError, match="multiple of 64"):
            _native.Weights(room[-room.ctypes.data % 64 + 4 :], pool)

    @pytest.mark.parametrize("rows", [2**64 - 1, 2**64 - 15, 2**63])
    def test_sizes_that_no_memory_has(self, rows):
        """Rounded up to whole panels, 2^64 - 1 rows were none, took no room, and could be read."""
        weights = _native.Weights(1024, _native.Pool(1))
        for size in (
            lambda: _native.packed_size("f32", rows, 4),
            lambda: _native.packed_size("q8_0", 16, rows // 32 * 32),
            lambda: _native.vector_size(rows),
            lambda: weights.reserve("f32", rows, 4, 1),
            lambda: weights.reserve("q8_0", 16, rows // 32 * 32, 1),
            lambda: weights.reserve_vector(rows),
        ):
            with pytest.raises(OverflowError, match="does not fit in memory addresses"):
                size()

    def test_vectors_of_another_length(self):
        own = _native.Weights(64, _native.Pool(1))
        index = own.reserve_vector(5)
        with pytest.raises(ValueError, match="a vector of 5 values came with 4"):
            own.fill_vector(index, np.zeros(4, np.float32))


LAYOUTS = {
    "f32": "1236e36e3bb90e67",
    "f16": "d49300ece4251306",
    "bf16": "a08f7c234d95f23a",
    "q8_0": "57f49fc8fb094528",
    "q4_0": "94721766032955ab",
    "q4_1": "47e2dc0ca94a3f17",
    "nf4": "25c7a65dcdf3c7f2",
    "fp4": "25c7a65dcdf3c7f2",
    "q4_k": "296717005b8e653d",
    "q6_k": "fab68400a8acb610",
    "q5_0": "03085318e3c35847",
    "q5_1": "59d45b6692807049",
    "q5_k": "bf73d69f6df76ca0",
    "iq4_nl": "94721766032955ab",
    "mxfp4": "e0276e351e91bfce",
    "u4z": "63c315be027a043d",
    "u8z": "f3e8184a33f212d3",
    "e4m3": "5711369e1dce91c5",
    "s8_k": "4fedbdbc4e0ca3bb",
    "q2_k": "165b37b50680c7ae",
    "q3_k": "e1e5627eb5175855",
    "iq4_xs": "3b6cc62dbbf736d7",
    "numbers in bf16": "1640ce544fa2fb5e",
    "numbers in q4_1": "77e4c66fbbad3e52",
    "numbers in q8_0": "2ab1473be5d118eb",
    "numbers in nf4": "0d11a75b5f328d9d",
    "numbers in fp4": "a0cb4c291d2a63c3",
}


@pytest.mark.parametrize("format", [f.name for f in FORMATS.values() if f.held is None])
def test_the_layout_is_the_one_that_is_kept(format):
    """Kept files hold these bytes. Whoever changes them must change LAYOUT in compile.py too, or old files are misread;
    then the digests here are replaced."""
    assert packed_digest(format) == LAYOUTS[format]


@pytest.mark.parametrize("format", ["bf16", "q4_1", "q8_0", "nf4", "fp4"])
def test_so_is_what_numbers_are_encoded_as(format):
    """As above: a better search for q4_1 needs another LAYOUT too."""
    values = np.frombuffer(hashlib.shake_128(b"values").digest(32 * 512 * 4), np.int32).astype(np.float32) / 2**30
    encoded = _native.quantize(format, values.reshape(32, 512), _native.Pool(1))
    assert hashlib.sha256(encoded).hexdigest()[:16] == LAYOUTS[f"numbers in {format}"]


def packed_digest(format):
    """Of two weights of 37 rows whose panels alternate, and a vector."""
    row = FORMATS[format].row_bytes(512)
    parts = [
        np.frombuffer(hashlib.shake_128(name).digest(37 * row), np.uint8).reshape(37, row) for name in (b"a", b"b")
    ]
    weights = _native.Weights(2 * _native.packed_size(format, 37, 512) + _native.vector_size(37), _native.Pool(1))
    weights.add(format, 512, parts)
    weights.add_vector(np.arange(37, dtype=np.float32))
    return hashlib.sha256(weights.packed()).hexdigest()[:16]


PEAK = """
def peak():
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])

from quickbrown import LLM
import quickbrown._native, numpy, tokenizers, quickbrown.weights.safetensors
before = peak()
llm = LLM({folder!r}, memory="4MB")
llm.logits([1, 2, 3])
print(peak() - before, llm.runner.weights.arena.bytes // 1024, llm.runner.weights.mapped)
"""


def test_a_mapped_model_is_never_held_twice(tmp_path_factory, home):
    """Peak memory, mapped pages included, while loading and running: what is held, and 16 MB for all else.

    The source has as many bytes as what is held: a start that read it too would take twice as much. What is written in
    the background by the first start takes no more either, except for the source's pages while they are packed.
    """
    folder = tmp_path_factory.mktemp("peak") / "folder"
    write_checkpoint(
        folder,
        model_type="llama",
        dtype="bf16",
        tokenizer=None,
        hidden_size=1024,
        intermediate_size=2816,
        num_hidden_layers=4,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=64,
    )
    taken = []
    for _ in range(2):
        run = [sys.executable, "-c", PEAK.format(folder=str(folder))]
        done = subprocess.run(run, capture_output=True, text=True, timeout=120, check=True).stdout.split()
        taken.append((int(done[0]), int(done[1]), done[2]))
    (packed, held, first), (mapped, _, second) = taken
    assert (first, second) == ("False", "True")
    assert held > 80 * 1024
    assert packed < 1.1 * held + 40 * 1024
    assert mapped < held + 16 * 1024


def test_the_payload_lies_at_a_large_page(path):
    start(path)
    (entry,) = kept.entries()
    assert entry.path.stat().st_size == HEADER + entry.description.bytes
    assert HEADER % (2 << 20) == 0
