"""Safetensors checkpoints: what is read, and that no damage does more than a sentence."""

from __future__ import annotations

import json
import mmap
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from checkpoints import write_checkpoint, write_safetensors, write_tensors
from quickbrown.models.families import shapes
from quickbrown.quant.formats import FORMATS
from quickbrown.quant.quantize import quantize
from quickbrown.weights.safetensors import SafetensorsSource
from quickbrown.weights.source import BadFile
from quickbrown.weights.tiny import TinySource

SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "vocab_size": 40,
}
NORM, UP, EMBEDDING, HEAD = (
    "model.norm.weight",
    "model.layers.0.mlp.up_proj.weight",
    "model.embed_tokens.weight",
    "lm_head.weight",
)


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_checkpoint(tmp_path / "m", model_type="llama", tokenizer=None, **SMALL)


@pytest.mark.parametrize("model_type", ["llama", "mistral", "qwen2", "qwen3"])
@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("tied", [True, False])
def test_reads_what_was_written(tmp_path, model_type, dtype, shards, tied):
    asked = {"model_type": model_type, "seed": 3}
    config = SMALL | {"num_hidden_layers": 2, "tie_word_embeddings": tied}
    source = SafetensorsSource(
        write_checkpoint(tmp_path, **asked, dtype=dtype, shards=shards, tokenizer=None, **config)
    )
    written = TinySource(**asked, **config)
    assert source.config == written.config | {"max_position_embeddings": 256}
    assert source.names() == written.names() == list(shapes(source.config))
    for name in source.names():
        expected = quantize(written.get(name).decode(), dtype)
        for _ in range(2):
            weight = source.get(name)
            assert (weight.format, weight.shape) == (dtype, expected.shape)
            assert (weight.data == expected.data).all()
            assert weight.data.flags.c_contiguous
            source.release(name)
    assert source.formats == {dtype: len(source.names())}
    assert source.bytes == sum(source.get(name).data.nbytes for name in source.names())
    assert source.metadata == {}
    with pytest.raises(KeyError):
        source.get("model.layers.9.input_layernorm.weight")


@pytest.mark.parametrize("model_type", ["llama", "qwen3"])
def test_biases(tmp_path, model_type):
    own = {"attention_bias": True} | ({"mlp_bias": True} if model_type == "llama" else {})
    source = SafetensorsSource(write_checkpoint(tmp_path, model_type=model_type, tokenizer=None, **SMALL, **own))
    assert "model.layers.0.self_attn.o_proj.bias" in source.names()
    assert ("model.layers.0.mlp.down_proj.bias" in source.names()) == (model_type == "llama")
    assert source.get("model.layers.0.self_attn.k_proj.bias").shape == (16,)


def test_weights_are_views_of_the_file(folder):
    weight = SafetensorsSource(folder).get(UP)
    base = weight.data
    while isinstance(base, np.ndarray):
        assert not base.flags.owndata
        base = base.base
    assert not weight.data.flags.writeable


def test_numbers_that_do_not_lie_at_multiples_of_their_size_are_copied(folder):
    """Kernels read rows as float32: a header of odd length moves them all."""
    path = folder / "model.safetensors"
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    path.write_bytes(struct.pack("<Q", length + 1) + data[8 : 8 + length] + b" " + data[8 + length :])
    source, written = SafetensorsSource(folder), TinySource(tie_word_embeddings=False, **SMALL)
    for name in source.names():
        weight = source.get(name)
        assert (weight.data == written.get(name).data).all()
        assert weight.data.ctypes.data % 4 == 0


def test_release_gives_pages_back_only_inside_the_weight(tmp_path):
    """Whole pages inside the weight and no others: neighbours share the pages at both ends."""
    folder = write_checkpoint(tmp_path, model_type="llama", tokenizer=None, **SMALL | {"intermediate_size": 1024})
    source = SafetensorsSource(folder)
    told = []

    class Map:
        def madvise(self, *what: int) -> None:
            told.append(what)

    for name in (UP, NORM):
        source._weights[name] = source._weights[name]._replace(map=Map())
        source.release(name)
    if not hasattr(mmap, "MADV_DONTNEED"):
        pytest.skip("this platform cannot be told; Linux runs it")
    [(advice, start, size)] = told
    t = source._weights[UP]
    assert advice == mmap.MADV_DONTNEED
    assert start % mmap.PAGESIZE == size % mmap.PAGESIZE == 0
    assert t.at <= start < t.at + mmap.PAGESIZE
    assert t.at + t.bytes - mmap.PAGESIZE < start + size <= t.at + t.bytes


Tensors = dict[str, tuple[str, tuple[int, ...], bytes]]


def tensors(folder: Path) -> Tensors:
    """What model.safetensors holds, as `write_tensors` takes it."""
    source = SafetensorsSource(folder)
    weights = {name: source.get(name) for name in source.names()}
    return {name: ("F32", weight.shape, weight.data.tobytes()) for name, weight in weights.items()}


def zeros(*shape: int, dtype: str = "F32", size: int = 4) -> tuple[str, tuple[int, ...], bytes]:
    return dtype, shape, bytes(int(np.prod(shape)) * size)


def test_tensors_that_are_harmless(folder):
    given = tensors(folder)
    old = {"model.layers.0.self_attn.rotary_emb.inv_freq": zeros(8), "model.rotary_emb.inv_freq": zeros(8)}
    write_tensors(folder, given | old)
    assert SafetensorsSource(folder).names() == list(shapes(SafetensorsSource(folder).config))


@pytest.mark.parametrize("published", ["both", "head", "embedding"])
def test_tied_embeddings_published_in_any_way(tmp_path, published):
    """Torch checkpoints hold both names of a tied weight, or either."""
    folder = write_checkpoint(tmp_path, model_type="llama", tokenizer=None, tie_word_embeddings=True, **SMALL)
    given = tensors(folder)
    table = given.pop(EMBEDDING)
    names = {"both": (EMBEDDING, HEAD), "head": (HEAD,), "embedding": (EMBEDDING,)}[published]
    write_tensors(folder, given | dict.fromkeys(names, table))
    source = SafetensorsSource(folder)
    assert source.config["tie_word_embeddings"] is True
    assert HEAD not in source.names()
    assert source.get(EMBEDDING).data.tobytes() == table[2]


def test_a_head_that_differs_is_not_tied_whatever_the_config_says(tmp_path):
    """transformers believes the weights; with the embedding in its place every token would be another."""
    folder = write_checkpoint(tmp_path, model_type="llama", tokenizer=None, tie_word_embeddings=True, **SMALL)
    given = tensors(folder)
    head = ("F32", (40, 32), np.full((40, 32), 2, np.float32).tobytes())
    write_tensors(folder, given | {HEAD: head})
    source = SafetensorsSource(folder)
    assert source.config["tie_word_embeddings"] is False
    assert source.get(HEAD).data.tobytes() == head[2]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({NORM: None}, f"the tensor '{NORM}' is missing"),
        ({NORM: None, UP: None}, f"the tensors '{UP}', '{NORM}' are missing"),
        ({HEAD: None}, f"the tensor '{HEAD}' is missing"),
        ({NORM: zeros(33)}, f"tensor '{NORM}' has shape (33,), but its config needs (32,)"),
        ({NORM: zeros(1, 32)}, f"tensor '{NORM}' has shape (1, 32)"),
        ({UP: zeros(32, 16)}, f"tensor '{UP}' has shape (32, 16), but its config needs (16, 32)"),
        (
            {UP: zeros(16, 32, dtype="F8_E8M0", size=1)},
            "is of type F8_E8M0; supported are F32, F16, BF16, F64, F8_E4M3",
        ),
        ({UP: zeros(16, 32, dtype="BOOL", size=1)}, "is of type BOOL; supported are F32, F16, BF16, F64, F8_E4M3"),
        ({UP: zeros(16, 20, dtype="q4_1", size=1)}, "is of type q4_1; supported are F32, F16, BF16"),
        ({"score.weight": zeros(2, 32)}, "holds the tensor 'score.weight', which this llama does not have"),
        ({"model.layers.0.self_attn.q_proj.bias": zeros(32)}, "q_proj.bias', which this llama does not have"),
        ({"model.layers.1.input_layernorm.weight": zeros(32)}, "which this llama does not have"),
        ({"x" * 1025: zeros(1)}, "1025 characters long"),
        ({"": zeros(1)}, "0 characters long"),
    ],
)
def test_tensors_that_do_not_fit_the_config(folder, change, sentence):
    given = {name: tensor for name, tensor in (tensors(folder) | change).items() if tensor is not None}
    write_safetensors(folder / "model.safetensors", given)
    refused(folder, sentence)


def test_more_layers_than_tensors(folder):
    """The names of 2147483647 layers would fill the memory before the first is missed."""
    config = json.loads((folder / "config.json").read_text())
    for layers, sentence in ((2**31 - 1, "claims 2147483647 layers"), (65536, "65536 layers and holds 12 tensors")):
        (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": layers}))
        refused(folder, sentence)


def test_a_config_that_cannot_be_is_refused_first(folder):
    (folder / "config.json").write_text("{}")
    refused(folder, "has no model_type")


# Headers

Header = dict[str, Any]


def with_header(folder: Path, change: Callable[[Header], object]) -> Path:
    """The file with its header changed."""
    path = folder / "model.safetensors"
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
    return folder


def entry(**fields: Any) -> Callable[[Header], object]:
    return lambda header: header[UP].update(fields)


def moved(by: int, size: int = 0) -> Callable[[Header], object]:
    def change(header: Header) -> None:
        start, stop = header[UP]["data_offsets"]
        header[UP]["data_offsets"] = [start + by, stop + by + size]

    return change


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (entry(dtype=3), "has a dtype that is no text"),
        (entry(dtype="F16"), "2048 bytes, which are not F16 values of shape (16, 32)"),
        (entry(shape=[16, 33]), "2048 bytes, which are not F32 values of shape (16, 33)"),
        (entry(shape=[2**62, 2**62]), "which are not F32 values"),
        (entry(shape=[16, -32]), "has no shape"),
        (entry(shape=[16, 32.0]), "has no shape"),
        (entry(shape=[True, 512]), "has no shape"),
        (entry(shape=[1] * 9), "has no shape of up to 8 sizes"),
        (entry(shape="16"), "has no shape"),
        (entry(data_offsets=[0]), "lies beyond the end"),
        (entry(data_offsets=[8, 4]), "lies beyond the end"),
        (entry(data_offsets=[0, 2**63]), "lies beyond the end"),
        (entry(data_offsets=[0, 2**62]), "lies beyond the end"),
        (entry(data_offsets=None), "lies beyond the end"),
        (entry(extra=1), "must have 'dtype', 'shape' and 'data_offsets', and nothing else"),
        (lambda header: header[UP].pop("dtype"), "must have 'dtype', 'shape' and 'data_offsets'"),
        (lambda header: header.update({UP: 3}), "must have 'dtype', 'shape' and 'data_offsets'"),
        (lambda header: header.pop(HEAD), "belong to none"),
        (lambda header: header.pop(UP), "a gap of 2048 bytes"),
        (moved(-4), "overlap"),
        (moved(4), "a gap of 4 bytes"),
        (lambda header: header.clear(), "belong to none"),
    ],
)
def test_wrong_headers(folder, change, sentence):
    refused(with_header(folder, change), sentence)


def test_metadata_is_passed_over(folder):
    SafetensorsSource(with_header(folder, lambda header: header.update(__metadata__={"a": "b"})))
    SafetensorsSource(with_header(folder, lambda header: header.pop("__metadata__")))


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "is empty"),
        (b"\x02\0\0\0", "too short"),
        (struct.pack("<Q", 2), "it is truncated"),
        (struct.pack("<Q", 2**63) + b"{}", "more than 16 MiB"),
        (struct.pack("<Q", 2**64 - 1) + b"{}", "more than 16 MiB"),
        (struct.pack("<Q", 2) + b"[]", "does not begin with '{'"),
        (struct.pack("<Q", 2) + b"{]", "is not valid JSON"),
        (struct.pack("<Q", 0), "does not begin with '{'"),
        (struct.pack("<Q", 13) + b'{"a":1,"a":2}', "'a' is there twice"),
        (struct.pack("<Q", 4) + b'{"\xff"', "is not valid UTF-8"),
        (struct.pack("<Q", 200_004) + b'{"a":' + b"[" * 199_999, "is nested too deeply"),
    ],
)
def test_files_that_are_none(folder, data, sentence):
    (folder / "model.safetensors").write_bytes(data)
    refused(folder, sentence)


# Shards


@pytest.fixture
def sharded(tmp_path) -> Path:
    return write_checkpoint(tmp_path / "m", model_type="llama", tokenizer=None, shards=2, **SMALL)


FIRST, SECOND, INDEX = (
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
)


def with_places(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    path = folder / INDEX
    index = json.loads(path.read_text())
    change(index)
    path.write_text(json.dumps(index))
    return folder


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda index: index.pop("weight_map"), "has no 'weight_map'"),
        (lambda index: index.update(weight_map=[]), "has no 'weight_map'"),
        (lambda index: index.update(weight_map={}), "has no 'weight_map'"),
        (lambda index: index["weight_map"].update({UP: "../" + FIRST}), "only plain names"),
        (lambda index: index["weight_map"].update({UP: "/etc/passwd"}), "only plain names"),
        (lambda index: index["weight_map"].update({UP: ".."}), "only plain names"),
        (lambda index: index["weight_map"].update({UP: "a\\b.safetensors"}), "only plain names"),
        (lambda index: index["weight_map"].update({UP: "model.bin"}), "only plain names"),
        (lambda index: index["weight_map"].update({UP: 3}), "only plain names"),
        (
            lambda index: index["weight_map"].update({UP: "model-00003.safetensors"}),
            "model-00003.safetensors is missing",
        ),
        (lambda index: index["weight_map"].update({UP: SECOND}), f"tensor '{UP}', which the index places else"),
    ],
)
def test_wrong_indexes(sharded, change, sentence):
    refused(with_places(sharded, change), sentence)


def test_shards_that_do_not_agree(sharded):
    (sharded / SECOND).rename(sharded / "kept")
    refused(sharded, f"the file {SECOND} is missing")
    (sharded / SECOND).write_bytes((sharded / FIRST).read_bytes())
    refused(sharded, "places elsewhere")
    with_places(sharded, lambda index: index.update(weight_map={"x": FIRST, "y": SECOND}))
    refused(sharded, "which another file holds too")


def test_a_tensor_that_the_index_promises_and_no_file_has(sharded):
    given: Tensors = {}
    write_safetensors(sharded / SECOND, given)
    refused(sharded, "are missing")


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "model.pt", "consolidated.pth"]
)
def test_pickles(folder, name):
    (folder / "model.safetensors").unlink()
    refused(folder, "holds no model.safetensors and no model.safetensors.index.json")
    (folder / name).write_bytes(b"\x80\x02cos\nsystem\n.")
    refused(
        folder, f"pickled ({name}), and pickles are not read because they can run code; convert them to safetensors"
    )


def refused(folder: Path, sentence: str) -> None:
    with pytest.raises(BadFile) as caught:
        SafetensorsSource(folder)
    one_sentence(caught.value, folder)
    assert sentence in str(caught.value)


def one_sentence(error: BadFile, folder: Path) -> None:
    said = str(error)
    assert said.startswith(str(folder))
    assert said.endswith(".")
    assert "\n" not in said.replace("\\n", "")
    assert len(said) < 1100 + len(str(folder))


# Damage


def read_everything(folder: Path) -> None:
    """All that a load does. BadFile is the only exception that may leave."""
    try:
        source = SafetensorsSource(folder)
        for name in source.names():
            assert np.asarray(source.get(name).decode()).shape == shapes(source.config)[name]
            source.release(name)
    except BadFile as error:
        one_sentence(error, folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return write_checkpoint(
        tmp_path_factory.mktemp("m"), model_type="llama", dtype="bf16", shards=2, tokenizer=None, **SMALL
    )


WORDS = [0, 1, 2**31, 2**32 - 1, 2**61, 2**63 - 1, 2**63, 2**64 - 1]
BYTES = [*b'"{}[],:-0123456789.eE\\ ', 0, 0xFF, 0xC3]


@given(data=st.data())
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_anywhere(whole, data):
    """Bytes flipped, overwritten, cut off or put in, in header, index and config: a BadFile, or all that is left."""
    name = data.draw(st.sampled_from([FIRST, SECOND, INDEX, "config.json"]))
    kept = (whole / name).read_bytes()
    head = 8 + struct.unpack("<Q", kept[:8])[0] if name.endswith("safetensors") else len(kept)
    damaged = bytearray(kept)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, head - 1))
        kind = data.draw(st.sampled_from(["flip", "byte", "word", "cut", "insert", "remove", "append"]))
        if kind == "flip" and at < len(damaged):
            damaged[at] ^= 1 << data.draw(st.integers(0, 7))
        elif kind == "byte" and at < len(damaged):
            damaged[at] = data.draw(st.sampled_from(BYTES))
        elif kind == "word":
            damaged[:8] = struct.pack("<Q", data.draw(st.sampled_from(WORDS)))
        elif kind == "cut":
            del damaged[at:]
        elif kind == "insert":
            damaged[at:at] = bytes([data.draw(st.sampled_from(BYTES))])
        elif kind == "remove":
            del damaged[at : at + 1]
        else:
            damaged += b" "
    try:
        (whole / name).write_bytes(damaged)
        read_everything(whole)
    finally:
        (whole / name).write_bytes(kept)


SIZES = st.sampled_from([0, 1, 16, 32, 64, 512, 1024, 2**31, 2**62, 2**63, 2**64, -1, -(2**63)])
VALUES = st.one_of(
    st.none(), st.booleans(), SIZES, st.floats(), st.sampled_from(["", "F32", "F16", "BF16", "I8", "f32", "q4_1"]),
    st.lists(SIZES | st.floats() | st.none(), max_size=3), st.dictionaries(st.text(max_size=3), SIZES, max_size=2),
)  # fmt: skip


@given(data=st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_odd_headers(whole, data):
    """Headers that are good JSON and say anything: bit flips seldom make the sizes that overflow."""
    kept = (whole / FIRST).read_bytes()
    length = struct.unpack("<Q", kept[:8])[0]
    header = json.loads(kept[8 : 8 + length])
    for _ in range(data.draw(st.integers(1, 3))):
        name = data.draw(st.sampled_from(sorted(header)))
        if data.draw(st.booleans()) and isinstance(header[name], dict):
            header[name][data.draw(st.sampled_from(["dtype", "shape", "data_offsets"]))] = data.draw(VALUES)
        else:
            header[data.draw(st.sampled_from([name, "x", ""]))] = data.draw(VALUES)
    text = json.dumps(header).encode()
    try:
        (whole / FIRST).write_bytes(struct.pack("<Q", len(text)) + text + kept[8 + length :])
        read_everything(whole)
    finally:
        (whole / FIRST).write_bytes(kept)


@pytest.mark.parametrize("name", [FIRST, INDEX])
def test_cut_anywhere(whole, name):
    kept = (whole / name).read_bytes()
    head = 8 + struct.unpack("<Q", kept[:8])[0] if name == FIRST else len(kept) - 1
    try:
        for size in [*range(0, head, 7), *range(head, len(kept) - 2, 499)]:
            (whole / name).write_bytes(kept[:size])
            with pytest.raises(BadFile) as caught:
                SafetensorsSource(whole)
            one_sentence(caught.value, whole)
    finally:
        (whole / name).write_bytes(kept)


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [("F64", "<f8"), ("I8", "i1"), ("U8", "u1"), ("I16", "<i2"), ("I32", "<i4"), ("I64", "<i8"), ("F8_E4M3", "u1")],
)
def test_numbers_of_every_type(folder, dtype, kind):
    """What is published in another type has the same values, if they are numbers of that type."""
    values = np.arange(16 * 32).reshape(16, 32) % 100
    written = tensors(folder) | {UP: (dtype, (16, 32), values.astype(kind).tobytes())}
    write_tensors(folder, written)
    source = SafetensorsSource(folder)
    weight = source.get(UP)
    assert (weight.format, weight.shape) == (dtype.lower(), (16, 32))
    want = FORMATS["f8_e4m3"].decode(values.astype(np.uint8)) if dtype == "F8_E4M3" else values
    assert (weight.decode() == want).all()
    assert source.formats == {"f32": len(source.names()) - 1, dtype.lower(): 1}
