"""GGUF files: what is read, and that no damage does more than a sentence."""

from __future__ import annotations

import mmap
import random
import struct
from pathlib import Path

import numpy as np
import pytest

from encoded import random_weight
from gguf_writer import Typed, tiny_llama, write_gguf, write_tiny_llama
from quickbrown.models.families import ARCHITECTURES, listed
from quickbrown.quant.formats import FORMATS
from quickbrown.quant.quantize import ENCODABLE, quantize
from quickbrown.text.gguf_vocab import template_from_gguf, tokenizer_from_gguf
from quickbrown.weights.gguf import GgufSource
from quickbrown.weights.source import BadFile
from quickbrown.weights.strings import Strings
from quickbrown.weights.tiny import TinySource

SMALL = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("format", [f for f in ENCODABLE if FORMATS[f].ggml_type is not None])
@pytest.mark.parametrize("tied", [True, False])
def test_reads_what_was_written(tmp_path, format, version, tied):
    path = write_tiny_llama(tmp_path / "m.gguf", format, seed=7, version=version, tie_word_embeddings=tied)
    source = GgufSource(path)
    written = TinySource(format=format, seed=7, vocab_size=266, tie_word_embeddings=tied)
    eps = pytest.approx(written.config["rms_norm_eps"])  # which the file holds in float32
    assert source.config == written.config | {"rms_norm_eps": eps}
    assert {k: type(v) for k, v in source.config.items()} == {k: type(v) for k, v in written.config.items()}
    assert source.names() == written.names()
    for name in source.names():
        a, b = source.get(name), written.get(name)
        assert (a.format, a.shape) == (b.format, b.shape)
        assert (a.data == b.data).all()
        assert a.data.flags.c_contiguous
        source.release(name)
        assert (source.get(name).data == b.data).all()
    assert source.bytes == sum(source.get(name).data.nbytes for name in source.names())
    matrices = sum(len(source.get(name).shape) == 2 for name in source.names())
    assert sum(source.formats.values()) == len(source.names())
    assert source.formats[format] == (matrices if format != "f32" else len(source.names()))
    with pytest.raises(KeyError):
        source.get("model.layers.9.input_layernorm.weight")


@pytest.mark.parametrize("format", [f for f in FORMATS if f not in ENCODABLE and FORMATS[f].ggml_type is not None])
def test_reads_formats_that_are_only_read(tmp_path, format):
    metadata, tensors = tiny_llama("f32", hidden_size=256, intermediate_size=256, num_hidden_layers=1)
    dice = np.random.default_rng(3)
    tensors = {n: random_weight(format, w.shape, dice) if len(w.shape) == 2 else w for n, w in tensors.items()}
    source = GgufSource(write_gguf(tmp_path / "m.gguf", metadata, tensors))
    assert source.formats[format] == 8
    for name, published in (("mlp.down_proj", "ffn_down"), ("self_attn.o_proj", "attn_output")):
        weight, written = source.get(f"model.layers.0.{name}.weight"), tensors[f"blk.0.{published}.weight"]
        assert (weight.format, weight.shape) == (format, written.shape)
        assert (weight.data == written.data).all()


def test_settings_of_every_type(tmp_path):
    metadata, tensors = tiny_llama(**SMALL)
    odd = {
        "x.u8": Typed(0, 200), "x.i8": Typed(1, -3), "x.u16": Typed(2, 60000), "x.i16": Typed(3, -300),
        "x.u32": Typed(4, 2**32 - 1), "x.i32": Typed(5, -5), "x.f32": Typed(6, 0.5), "x.bool": True,
        "x.u64": Typed(10, 2**64 - 1), "x.i64": Typed(11, -(2**63)), "x.f64": Typed(12, 0.1), "x.text": "naïve 🙂",
        "x.numbers": [1, 2, 3], "x.floats": [0.5, 1.5], "x.flags": [True, False], "x.texts": ["a", "", "é\0b"],
        "x.none": [], "x.no texts": Typed(9, []),
    }  # fmt: skip
    read = GgufSource(write_gguf(tmp_path / "m.gguf", metadata | odd, tensors)).metadata
    for key, value in odd.items():
        value = value.value if isinstance(value, Typed) else value
        found = list(read[key]) if isinstance(read[key], (np.ndarray, Strings)) else read[key]
        assert found == value
    with pytest.raises(TypeError):
        read["x"] = 1


def test_defaults_where_settings_are_missing(tmp_path):
    metadata, tensors = tiny_llama(num_key_value_heads=4)
    for key in ("attention.head_count_kv", "attention.key_length", "attention.value_length", "rope.freq_base",
                "rope.dimension_count", "vocab_size"):  # fmt: skip
        del metadata["llama." + key]
    config = GgufSource(write_gguf(tmp_path / "m.gguf", metadata, tensors)).config
    assert (config["num_key_value_heads"], config["head_dim"], config["rope_parameters"]["rope_theta"]) == (
        4,
        16,
        10000.0,
    )


def test_release_gives_pages_back_only_inside_the_weight(tmp_path):
    """Whole pages inside the weight and no others: neighbours share the pages at both ends."""
    source = GgufSource(write_tiny_llama(tmp_path / "m.gguf", "f32", intermediate_size=1024))
    told = []

    class Map:
        def madvise(self, *what):
            told.append(what)

    part = source.file._parts[0]
    part.map, kept = Map(), part.map
    name = "model.layers.0.mlp.up_proj.weight"
    source.release(name)
    source.release("model.norm.weight")
    part.map = kept
    if not hasattr(mmap, "MADV_DONTNEED"):
        pytest.skip("this platform cannot be told; Linux runs it")
    [(advice, start, size)] = told
    t = source._weights[name]
    assert advice == mmap.MADV_DONTNEED
    assert start % mmap.PAGESIZE == size % mmap.PAGESIZE == 0
    assert t.at <= start < t.at + mmap.PAGESIZE
    assert t.at + t.bytes - mmap.PAGESIZE < start + size <= t.at + t.bytes


def small() -> tuple[dict, dict]:
    return tiny_llama("q4_0", num_key_value_heads=2, **SMALL)


def zeros(*shape: int):
    return quantize(np.zeros(shape, np.float32), "f32")


HEADS, EPS, THETA = "llama.attention.head_count", "llama.attention.layer_norm_rms_epsilon", "llama.rope.freq_base"
WRONG_SETTINGS = [
    ({"general.architecture": "no_such"}, f"architecture 'no_such'; the supported ones are {listed(ARCHITECTURES)}"),
    ({"general.architecture": None}, "'general.architecture' is missing"),
    ({"general.architecture": 3}, "'general.architecture' must be a text"),
    ({"general.type": "adapter"}, "holds a 'adapter', not a model"),
    ({"general.alignment": 48}, "power of two"),
    ({"general.alignment": 0}, "power of two"),
    ({"general.alignment": Typed(4, 2**31)}, "power of two"),
    ({"general.alignment": Typed(6, 32.0)}, "power of two"),
    ({"general.quantization_version": 1}, "version 1 of the formats"),
    ({"split.count": Typed(2, 3)}, "one of 3 parts, and its name does not say which: it must end like -00001-of-00003"),
    ({"split.count": 0}, "'split.count' must be a whole number, not 0"),
    ({"split.count": "2"}, "'split.count' must be a whole number, not '2'"),
    ({"llama.block_count": "1"}, "'llama.block_count' must be a whole number"),
    ({"llama.block_count": True}, "'llama.block_count' must be a whole number"),
    ({"llama.block_count": None}, "'llama.block_count' is missing"),
    ({"llama.block_count": 2}, "the tensors 'blk.1.attn_norm.weight', 'blk.1.attn_q.weight', "),
    ({"llama.block_count": Typed(4, 2**32 - 1)}, "from 1 to"),
    ({"llama.block_count": 2**31 - 1}, "claims 2147483647 layers and holds 11 tensors"),
    ({"llama.context_length": 0}, "from 1 to"),
    ({"llama.context_length": Typed(11, -1)}, "from 1 to"),
    ({HEADS: 0}, "from 1 to"),
    ({HEADS: [4, 4]}, "'llama.attention.head_count' must be a whole number"),
    ({HEADS: 3}, "3 attention heads do not divide into 2 key-value heads"),
    ({HEADS: 6, "llama.attention.key_length": None}, "32 does not divide into 6"),
    ({HEADS: 8}, "has shape"),
    ({HEADS: 64, "llama.attention.key_length": None}, "32 does not divide into 64"),
    ({"llama.attention.key_length": 7}, "even number"),
    ({"llama.attention.value_length": 4}, "must be equal"),
    ({"llama.rope.dimension_count": 4}, "must be equal"),
    ({"llama.embedding_length": 64}, "has shape"),
    ({"llama.vocab_size": 300}, "llama.vocab_size is 300 and the embedding has 266 rows"),
    ({"tokenizer.ggml.tokens": ["a"]}, "lists 1 tokens and the embedding has 266 rows"),
    ({EPS: -1e-5}, "positive number"),
    ({EPS: float("nan")}, "positive number"),
    ({EPS: 1}, "must be a number with a fraction"),
    ({EPS: None}, "is missing"),
    ({THETA: float("inf")}, "positive number"),
    ({THETA: 0.0}, "positive number"),
    ({"llama.rope.scaling.type": "linear"}, "rope_type 'linear' needs factor"),
    ({"llama.rope.scaling.factor": 2.0}, "needs 'llama.rope.scaling.factor'"),
    ({"llama.rope.scale_linear": 4.0}, "needs 'llama.rope.scale_linear'"),
    ({"llama.expert_count": 8}, "the setting 'llama.expert_used_count' is missing"),
    ({"llama.expert_count": -1}, "the setting 'llama.expert_count' must be from 0 to"),
    ({"llama.expert_used_count": 2}, "needs 'llama.expert_used_count'"),
    ({"llama.attention.sliding_window": 128}, "needs 'llama.attention.sliding_window'"),
    ({"llama.attention.scale": 0.5}, "needs 'llama.attention.scale'"),
]


@pytest.mark.parametrize(("change", "sentence"), WRONG_SETTINGS)
def test_wrong_settings(tmp_path, change, sentence):
    metadata, tensors = small()
    metadata = {key: value for key, value in (metadata | change).items() if value is not None}
    refused(write_gguf(tmp_path / "m.gguf", metadata, tensors), sentence)


def test_settings_that_change_nothing(tmp_path):
    metadata, tensors = small()
    idle = {
        "llama.rope.scaling.type": "none",
        "llama.rope.scaling.factor": 1.0,
        "llama.rope.scale_linear": 1.0,
        "llama.expert_count": 0,
        "llama.attention.causal": True,
        "general.alignment": 32,
        "other.thing": 5,
    }
    GgufSource(write_gguf(tmp_path / "m.gguf", metadata | idle, tensors))


WRONG_TENSORS = [
    ({"blk.0.attn_q.bias": zeros(32)}, "holds the tensor 'blk.0.attn_q.bias'"),
    ({"rope_freqs.weight": zeros(4)}, "of rope_type 'longrope' must be a list of"),
    ({"blk.1.ffn_up.weight": zeros(32, 32)}, "holds the tensor 'blk.1.ffn_up.weight'"),
    ({"blk.0.ffn_gate_exps.weight": zeros(2, 32, 32)}, "holds the tensor 'blk.0.ffn_gate_exps.weight'"),
    ({"output_norm.weight": None}, "tensor 'output_norm.weight' is missing"),
    ({"token_embd.weight": None}, "tensor 'token_embd.weight' is missing"),
    ({"blk.0.attn_v.weight": None}, "tensor 'blk.0.attn_v.weight' is missing"),
    ({"output_norm.weight": zeros(33)}, "'output_norm.weight' has shape"),
    ({"output_norm.weight": zeros(1, 32)}, "'output_norm.weight' has shape"),
    ({"output.weight": zeros(200, 32)}, "'output.weight' has shape"),
    ({"x" * 65: zeros(1)}, "more than the 64"),
    ({"": zeros(1)}, "empty name"),
]


@pytest.mark.parametrize(("change", "sentence"), WRONG_TENSORS)
def test_wrong_tensors(tmp_path, change, sentence):
    metadata, tensors = small()
    tensors = {name: weight for name, weight in (tensors | change).items() if weight is not None}
    refused(write_gguf(tmp_path / "m.gguf", metadata, tensors), sentence)


def place(data: bytes, name: str) -> int:
    """Where the description of a tensor goes on behind its name."""
    return data.index(struct.pack("<Q", len(name)) + name.encode()) + 8 + len(name)


def patched(path: Path, at: int, new: bytes) -> Path:
    data = bytearray(path.read_bytes())
    data[at : at + len(new)] = new
    path.write_bytes(data)
    return path


NAME = "blk.0.ffn_up.weight"
# Behind a tensor's name: dimensions u32 at 0, sizes u64 at 4 and 12, type u32 at 20, offset u64 at 24.
PATCHES = [
    (0, "<I", 0, "has 0 dimensions"),
    (0, "<I", 5, "has 5 dimensions"),
    (0, "<I", 2**32 - 1, "dimensions"),
    (4, "<Q", 0, "dimension of size 0"),
    (12, "<Q", 0, "dimension of size 0"),
    (4, "<Q", 33, "multiple of 32 values, not 33"),
    (12, "<Q", 2**63, "beyond the end"),
    (4, "<Q", 2**64 - 32, "beyond the end"),
    (12, "<Q", 31, "has shape (31, 32)"),
    (20, "<I", 9, "has type Q8_1, which cannot be read; the types that can are F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q4_K"),
    (20, "<I", 10, "multiple of 256 values, not 32"),
    (20, "<I", 14, "multiple of 256 values, not 32"),
    (20, "<I", 4711, "has type 4711"),
    (24, "<Q", 0, "overlap"),
    (24, "<Q", 33, "not a multiple of 32"),
    (24, "<Q", 2**64 - 32, "beyond the end"),
]


@pytest.mark.parametrize(("offset", "kind", "value", "sentence"), PATCHES)
def test_wrong_descriptions(tmp_path, offset, kind, value, sentence):
    path = write_gguf(tmp_path / "m.gguf", *small())
    refused(patched(path, place(path.read_bytes(), NAME) + offset, struct.pack(kind, value)), sentence)


@pytest.mark.parametrize(
    ("at", "new", "sentence"),
    [
        (0, b"GGML", "not a GGUF file"),
        (0, b"lmgg", "older GGML"),
        (4, b"\1\0\0\0", "version 1; versions 2 and 3"),
        (4, b"\4\0\0\0", "version 4; versions 2 and 3"),
        (4, b"\0\0\0\3", "big-endian"),
        (8, b"\xff" * 8, "18446744073709551615 tensors"),
        (16, b"\xff" * 8, "18446744073709551615 settings"),
        (16, struct.pack("<Q", 60000), None),
        (8, struct.pack("<Q", 60000), None),
        (24, b"\xff" * 8, "more than the 65535"),
        (24, bytes(8), "empty name"),
        (32, b"\xff", "not valid UTF-8"),
    ],
)
def test_wrong_beginnings(tmp_path, at, new, sentence):
    refused(patched(write_gguf(tmp_path / "m.gguf", *small()), at, new), sentence)


def behind(path: Path, key: str) -> int:
    """Where the type of a setting stands."""
    return place(path.read_bytes(), key)


@pytest.mark.parametrize(
    ("key", "offset", "new", "sentence"),
    [
        ("general.name", 0, struct.pack("<I", 99), "unknown type 99"),
        ("general.name", 4, b"\xff" * 8, "the setting 'general.name' is 18446744073709551615 bytes long"),
        ("general.name", 4, struct.pack("<Q", 2**20), "ends in the middle of the setting 'general.name'"),
        ("general.name", 12, b"\xc3\x28", "not valid UTF-8"),
        ("tokenizer.ggml.tokens", 4, struct.pack("<I", 13), "array of unknown type 13"),
        ("tokenizer.ggml.tokens", 8, b"\xff" * 8, "truncated"),
        ("tokenizer.ggml.tokens", 16, b"\xff" * 8, "truncated"),
        ("tokenizer.ggml.tokens", 24, b"\xff", "not valid UTF-8"),
        ("tokenizer.ggml.token_type", 8, b"\xff" * 8, "truncated"),
        ("tokenizer.ggml.add_bos_token", 4, b"\2", "should be true or false and is 2"),
    ],
)
def test_wrong_values(tmp_path, key, offset, new, sentence):
    path = write_gguf(tmp_path / "m.gguf", *small())
    refused(patched(path, behind(path, key) + offset, new), sentence)


def test_a_character_may_not_span_two_strings(tmp_path):
    metadata, tensors = small()
    halves = {"x.two": ["?", "?"]}
    path = write_gguf(tmp_path / "m.gguf", metadata | halves, tensors)
    at = behind(path, "x.two") + 16
    patched(path, at + 8, b"\xc3")
    refused(patched(path, at + 17, b"\xa9"), "not valid UTF-8")


def nested(value) -> bytes:
    """An array of arrays of numbers of type u8, as deep as lists are in it."""
    if value and isinstance(value[0], int):
        return struct.pack("<IQ", 0, len(value)) + bytes(value)
    return struct.pack("<IQ", 9, len(value)) + b"".join(map(nested, value))


def with_lists(path: Path, array: bytes) -> Path:
    """A file whose first setting is this array."""
    whole = write_gguf(path, *small()).read_bytes()
    setting = struct.pack("<Q", 4) + b"x.in" + struct.pack("<I", 9) + array
    count = struct.unpack_from("<Q", whole, 16)[0] + 1
    head, body = whole[24 : (end := place(whole, "output_norm.weight") + 24)], whole[end + -end % 32 :]
    data = whole[:16] + struct.pack("<Q", count) + setting + head
    path.write_bytes(data + bytes(-len(data) % 32) + body)
    return path


def test_lists_in_lists(tmp_path):
    value = [[[1, 2], [3]], [[4, 5, 6]]]
    source = GgufSource(with_lists(tmp_path / "m.gguf", nested(value)))
    assert [[list(inner) for inner in middle] for middle in source.metadata["x.in"]] == value
    deep: list = [7]
    for _ in range(7):
        deep = [deep]
    assert GgufSource(with_lists(tmp_path / "m.gguf", nested(deep))).metadata["x.in"]
    for _ in range(3000):
        deep = [deep]
    head = struct.pack("<IQ", 9, 1) * 3000 + nested([7])
    refused(with_lists(tmp_path / "m.gguf", head), "more than 8 deep")
    refused(with_lists(tmp_path / "m.gguf", struct.pack("<IQ", 9, 2**64 - 1)), "more than 65536 lists")
    wide = struct.pack("<IQ", 9, 60000) + (struct.pack("<IQ", 9, 1) + struct.pack("<IQ", 0, 0)) * 60000
    refused(with_lists(tmp_path / "m.gguf", wide), "more than 65536 lists")


def split(folder: Path, parts: int = 3, metadata: dict | None = None, **changes) -> list[Path]:
    """A tiny Llama in parts as gguf-split writes them: all settings in the first; `changes` of those of part 2."""
    whole, tensors = small()
    names = list(tensors)
    paths = []
    for i in range(parts):
        own = dict.fromkeys(names[len(names) * i // parts : len(names) * (i + 1) // parts])
        said = {"split.no": Typed(2, i), "split.count": Typed(2, parts), "split.tensors.count": Typed(5, len(names))}
        said |= {key.replace("_", "."): value for key, value in changes.items() if i == 1}
        paths.append(folder / f"m-{i + 1:05}-of-{parts:05}.gguf")
        write_gguf(paths[-1], (whole if i == 0 else {}) | said, {name: tensors[name] for name in own})
    return paths


@pytest.mark.parametrize("given", [0, 1, 2])
def test_parts(tmp_path, given):
    """Whichever is named, they are one file."""
    paths = split(tmp_path)
    whole, source = GgufSource(write_gguf(tmp_path / "whole.gguf", *small())), GgufSource(paths[given])
    assert source.file.paths == paths
    assert source.config == whole.config
    assert source.names() == whole.names()
    for name in source.names():
        assert (source.get(name).data == whole.get(name).data).all()
        source.release(name)
    assert (source.bytes, source.formats) == (whole.bytes, whole.formats)
    assert {source.file.tensors[name].part for name in source.file.tensors} == {0, 1, 2}


def test_parts_that_are_not_whole(tmp_path):
    paths = split(tmp_path)
    paths[0].unlink()
    refused(paths[1], "is one of 3 parts, and beside it are missing: m-00001-of-00003.gguf")
    paths = split(tmp_path, 9)
    for path in paths[3:]:
        path.unlink()
    refused(paths[0], "missing: m-00004-of-00009.gguf, m-00005-of-00009.gguf, m-00006-of-00009.gguf, "
                      "m-00007-of-00009.gguf and 2 more")  # fmt: skip
    paths = split(tmp_path)
    refused(paths[2].rename(tmp_path / "m.gguf"), "one of 3 parts, and its name does not say which")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"split_no": Typed(2, 2)}, "says that it is part 3, and its name says 2"),
        ({"split_count": Typed(2, 4)}, "says that it is one of 4 parts, and its name says of 3"),
        ({"split_tensors_count": Typed(5, 12)}, "says that the parts hold 12 tensors together, and they hold 11"),
        ({"split_tensors_count": Typed(5, -1)}, "'split.tensors.count' must be a whole number, not -1"),
        ({"split_no": "1"}, "'split.no' must be a whole number, not '1'"),
    ],
)
def test_parts_that_do_not_belong_together(tmp_path, changes, sentence):
    paths = split(tmp_path, **changes)
    with pytest.raises(BadFile) as caught:
        GgufSource(paths[0])
    one_sentence(caught.value, paths[1])
    assert sentence in str(caught.value)


def test_a_tensor_in_two_parts(tmp_path):
    paths = split(tmp_path)
    _, tensors = small()
    said = {"split.no": Typed(2, 1), "split.count": Typed(2, 3)}
    names = [NAME, "token_embd.weight"]
    write_gguf(paths[1], said, {name: tensors[name] for name in names})
    for path in (paths[0], paths[2]):
        data = path.read_bytes()
        at = behind(path, "split.tensors.count") + 4
        path.write_bytes(data[:at] + struct.pack("<i", 9) + data[at + 4 :])
    with pytest.raises(BadFile, match=r"'token_embd\.weight', which another part holds too"):
        GgufSource(paths[0])


def test_twice(tmp_path):
    metadata, tensors = small()
    path = write_gguf(tmp_path / "m.gguf", metadata | {"general.nane": "x"}, tensors)
    at = path.read_bytes().index(b"general.nane")
    refused(patched(path, at, b"general.name"), "'general.name' is there twice")
    path = write_gguf(tmp_path / "m.gguf", metadata, tensors | {"blk.0.ffn_uq.weight": tensors[NAME]})
    at = path.read_bytes().index(b"blk.0.ffn_uq.weight")
    refused(patched(path, at, NAME.encode()), f"'{NAME}' is there twice")


def test_files_that_are_none(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    refused(tmp_path / "empty", "is empty")
    for size in range(1, 25):
        (tmp_path / "short").write_bytes((b"GGUF\3\0\0\0" + bytes(16))[:size])
        refused(tmp_path / "short")
    with pytest.raises(FileNotFoundError):
        GgufSource(tmp_path / "absent")


def refused(path: Path, sentence: str | None = None) -> None:
    with pytest.raises(BadFile) as caught:
        GgufSource(path)
    one_sentence(caught.value, path)
    assert sentence is None or sentence in str(caught.value)


def one_sentence(error: BadFile, path: Path) -> None:
    said = str(error)
    assert said.startswith(f"{path}: ")
    assert said.endswith(".")
    assert "\n" not in said.replace("\\n", "")
    assert len(said) < 1100 + len(str(path))


def read_everything(path: Path) -> None:
    """All that a load does with a file. BadFile is the only exception that may leave."""
    try:
        source = GgufSource(path)
        for name in source.names():
            weight = source.get(name)
            assert weight.data.size
        tokenizer = tokenizer_from_gguf(source.metadata, path, lazy=True)
        ids = tokenizer.encode("hello the 12 <|im_end|>")
        tokenizer.decode(ids)
        assert tokenizer.raw.encode("hello the 12 <|im_end|>", add_special_tokens=False).ids == ids
        template_from_gguf(source.metadata, tokenizer, path)
    except BadFile as error:
        one_sentence(error, path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[bytes, int]:
    """A file, and how long its head is."""
    path = write_gguf(tmp_path_factory.mktemp("gguf") / "m.gguf", *small())
    data = path.read_bytes()
    return data, place(data, "output_norm.weight") + 24


def test_truncated_anywhere(tmp_path, whole):
    data, head = whole
    path = tmp_path / "m.gguf"
    for size in [*range(0, 400), *range(400, head, 97), *range(head, len(data) - 32, 997)]:
        path.write_bytes(data[:size])
        refused(path)


def test_flipped_bits(tmp_path, whole):
    data, head = whole
    rng = random.Random(1)
    path = tmp_path / "m.gguf"
    for _ in range(900):
        damaged = bytearray(data)
        for _ in range(rng.choice([1, 1, 1, 4])):
            damaged[rng.randrange(head)] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        read_everything(path)


def test_overwritten_words(tmp_path, whole):
    """Bit flips seldom make the numbers that overflow; these are those, at every place where one may stand."""
    data, head = whole
    rng = random.Random(2)
    path = tmp_path / "m.gguf"
    words = [0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**61, 2**63 - 1, 2**63, 2**64 - 32, 2**64 - 1]
    for _ in range(600):
        damaged = bytearray(data)
        at = rng.randrange(head - 8)
        word = rng.choice(words)
        damaged[at : at + 8] = struct.pack("<Q", word)
        path.write_bytes(damaged)
        read_everything(path)
