"""The numbers that encoded bytes mean, and the bytes that numbers become."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quickbrown.models.families import shapes
from quickbrown.models.gguf import Gguf
from quickbrown.quant.formats import FORMATS
from quickbrown.quant.quantize import ENCODABLE, quantize
from quickbrown.quant.weight import Weight
from quickbrown.weights.names import MOST_LISTED, Place, halves, key_head_order, kind_order, pairs, places, unfitting
from quickbrown.weights.tiny import TINY, TinySource


def half(x: float) -> bytes:
    return np.float16(x).tobytes()


def row(data: bytes) -> np.ndarray:
    return np.frombuffer(data, np.uint8)[None]


NIBBLES = bytes(j | (15 - j) << 4 for j in range(16))  # values 0..15, then 15..0
COUNT = [*range(16), *range(15, -1, -1)]
PAIRS = bytes(range(1, 256, 8))  # high halves 0, 0, 1, 1, ... 15, 15; low halves 1, 9, 1, 9, ...
HIGH_LOW = [q for byte in PAIRS for q in (byte >> 4, byte & 15)]
# As published: Dettmers et al. 2023, appendix E; a sign and the magnitudes of bitsandbytes in twelfths.
NF4 = [
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
]  # fmt: skip
FP4 = [sign * x / 12 for sign in (1, -1) for x in (0, 0.0625, 8, 12, 4, 6, 2, 3)]

# Bit j of 0x80010006 belongs to value j: to 1, 2, 16 and 31.
FIFTH = bytes([6, 0, 1, 0x80])
COUNT_5 = [q + 16 * (j in (1, 2, 16, 31)) for j, q in enumerate(COUNT)]
IQ4_NL = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113]
MXFP4 = [sign * x for sign in (1, -1) for x in (0, 0.5, 1, 1.5, 2, 3, 4, 6)]  # E2M1 of the OCP specification


def single(x: float) -> bytes:
    return np.float32(x).tobytes()


@pytest.mark.parametrize(
    ("name", "data", "values"),
    [
        ("f32", b"\x00\x00\x80\x3f\x00\x00\x00\xc0", [1.0, -2.0]),
        ("f16", b"\x00\x3c\x00\xc0", [1.0, -2.0]),
        ("bf16", b"\x80\x3f\x00\xc0", [1.0, -2.0]),
        ("q8_0", half(0.5) + bytes(range(16)) + bytes(range(240, 256)), [*np.arange(16) / 2, *np.arange(-16, 0) / 2]),
        ("q4_0", half(2.0) + NIBBLES, [2.0 * (q - 8) for q in COUNT]),
        ("q4_1", half(0.25) + half(-3.0) + NIBBLES, [0.25 * q - 3 for q in COUNT]),
        ("nf4", single(4.0) + PAIRS, [float(np.float32(4 * NF4[q])) for q in HIGH_LOW]),
        ("fp4", single(0.5) + PAIRS, [float(np.float32(FP4[q] / 2)) for q in HIGH_LOW]),
        ("q5_0", half(2.0) + FIFTH + NIBBLES, [2.0 * (q - 16) for q in COUNT_5]),
        ("q5_1", half(0.25) + half(-3.0) + FIFTH + NIBBLES, [0.25 * q - 3 for q in COUNT_5]),
        ("iq4_nl", half(0.5) + NIBBLES, [IQ4_NL[q] / 2 for q in COUNT]),
        ("mxfp4", bytes([126]) + NIBBLES, [MXFP4[q] / 2 for q in COUNT]),
        ("mxfp4", bytes([0]) + NIBBLES, [MXFP4[q] * 2.0**-127 for q in COUNT]),
    ],
)
def test_blocks_written_by_hand(name, data, values):
    decoded = FORMATS[name].decode(row(data))
    assert decoded.dtype == np.float32
    assert decoded.tolist() == [values]
    twice = FORMATS[name].decode(np.concatenate([np.concatenate([row(data)] * 2, 1)] * 3))
    assert twice.tolist() == [[*values, *values]] * 3


def super_block(name, random):
    """Bytes and values of a block of 256, value by value as the format's description has them."""
    data = bytearray(random.integers(0, 256, FORMATS[name].block_bytes, np.uint8).tobytes())
    values = []
    if name == "q6_k":
        data[208:] = half(0.5)
        for i in range(256):
            part, at = divmod(i, 128)
            low = data[64 * part + at % 64] >> 4 * (at // 64) & 15
            high = data[128 + 32 * part + at % 32] >> 2 * (at // 32) & 3
            scale = int(np.int8(np.uint8(data[192 + i // 16])))
            values.append(0.5 * scale * ((low | high << 4) - 32))
        return bytes(data), values
    data[:4] = half(0.5) + half(0.25)
    packed = data[4:16]
    nibbles = 48 if name == "q5_k" else 16
    for i in range(256):
        g = i // 32
        if g < 4:
            scale, least = packed[g] & 63, packed[g + 4] & 63
        else:
            scale = packed[g + 4] & 15 | packed[g - 4] >> 6 << 4
            least = packed[g + 4] >> 4 | packed[g] >> 6 << 4
        q = data[nibbles + 32 * (g // 2) + i % 32] >> 4 * (g % 2) & 15
        if name == "q5_k":
            q |= (data[16 + i % 32] >> g & 1) << 4
        values.append(0.5 * scale * q - 0.25 * least)
    return bytes(data), values


@pytest.mark.parametrize("name", ["q4_k", "q5_k", "q6_k"])
def test_blocks_of_256(name):
    random = np.random.default_rng(6)
    (one, first), (two, second) = super_block(name, random), super_block(name, random)
    assert FORMATS[name].decode(np.concatenate([row(one + two), row(two + one)])).tolist() == [
        first + second,
        second + first,
    ]


def test_the_table():
    for name, f in FORMATS.items():
        assert f.name == name == name.lower()
        assert f.row_bytes(2 * f.block) == 2 * f.block_bytes
        assert f.held is None or FORMATS[f.held].held is None
        assert f.exact or f.held == "f32"
    assert [f.ggml_type for f in FORMATS.values()] == [
        0, 1, 30, 8, 2, 3, None, None, 12, 14, 6, 7, 13, 20, 39, None, None, None, None, 10, 11, 23, 28, None, None,
        None, 24, 25, 26, 27, 16, 17, 18, 19, 21, 22, 29, 34, 35, 40,
    ]  # fmt: skip
    assert [f.bits for f in FORMATS.values()] == [
        32, 16, 16, 8.5, 4.5, 5, 4.5, 4.5, 4.5, 6.5625, 5.5, 6, 5.5, 4.5, 4.25, 5, 9.5, 8.5, 8.625, 2.625, 3.4375, 4.25,
        64, 8, 8, 8, 8, 16, 32, 64, 2.0625, 2.3125, 3.0625, 1.5625, 3.4375, 2.5625, 1.75, 1.6875, 2.0625, 4.5,
    ]  # fmt: skip
    with pytest.raises(ValueError, match="multiple of 32 values, not 33"):
        FORMATS["q4_0"].row_bytes(33)


STEP = {
    "f32": 0.0,
    "f16": 2.0**-11,
    "bf16": 2.0**-8,
    "q8_0": 0.5 / 127,
    "q4_0": 1 / 8,
    "q4_1": 1 / 15,
    "nf4": 0.16,
    "fp4": 1 / 6,
}


@pytest.mark.parametrize("name", ENCODABLE)
@given(seed=st.integers(0, 2**32), scale=st.sampled_from([1e-3, 1.0, 300.0]))
@settings(max_examples=25, deadline=None)
def test_quantizing_stays_within_its_step(name, seed, scale):
    x = (np.random.default_rng(seed).standard_normal((3, 64)) * scale).astype(np.float32)
    weight = quantize(x, name)
    assert (weight.format, weight.shape, weight.data.shape) == (name, x.shape, (3, FORMATS[name].row_bytes(64)))
    assert weight.data.flags.c_contiguous
    # q4_0 loses up to a whole step at the end opposite to the farthest value; float16 scales add 2^-11 of the range.
    bound = (STEP[name] + (2.0**-9 if "q" in name else 0)) * np.abs(x).max() + 1e-6 * scale
    assert np.abs(weight.decode() - x).max() <= bound


@pytest.mark.parametrize("name", ENCODABLE)
def test_what_was_decoded_quantizes_to_itself(name):
    rng = np.random.default_rng(5)
    exact = quantize(rng.integers(-8, 8, (4, 64)).astype(np.float32) * [[0], [1], [1], [0.5]], name).decode()
    exact[1:, ::32] = -8 if "q4" in name else exact[1:, ::32]
    again = quantize(exact, name).decode()
    np.testing.assert_allclose(quantize(again, name).decode(), again, rtol=2e-3)
    assert not again[0].any()


def test_rounding():
    near = np.float32([1 + 2**-9, 1 + 3 * 2**-9, -1 - 2**-8, 1 + 3 * 2**-8])  # the last two lie half-way: to even
    assert quantize(near, "bf16").decode().tolist() == [1, 1 + 2**-7, -1, 1 + 2**-6]
    values = np.zeros((1, 32), np.float32)
    values[0, :4] = [127, 0.5, -0.5, 1.49]
    assert quantize(values, "q8_0").decode()[0, :4].tolist() == [127, 1, -1, 1]
    values[0, :4] = [-8, 7, 3.4, -0.6]
    assert quantize(values, "q4_0").decode()[0, :4].tolist() == [-8, 7, 3, -1]


def test_refusals():
    with pytest.raises(ValueError, match="the format 'q9_k' is unknown; numbers can be encoded in f32"):
        quantize(np.zeros((1, 32), np.float32), "q9_k")
    with pytest.raises(ValueError, match="finite"):
        quantize(np.float32([[np.nan] * 32]), "q8_0")
    with pytest.raises(ValueError, match="multiple of 32"):
        quantize(np.zeros((2, 16), np.float32), "q8_0")
    with pytest.raises(ValueError, match="at least one value"):
        quantize(np.zeros((0, 32), np.float32), "q8_0")


def test_names_there_and_back():
    names = shapes(TINY | {"tie_word_embeddings": False, "num_hidden_layers": 12, "attention_bias": True})
    found = places(Gguf(), names)
    assert found.keys() == names.keys()
    assert len(set(found.values())) == len(names)
    assert found["model.layers.3.self_attn.o_proj.weight"] == Place("blk.3.attn_output.weight", None)
    assert found["model.layers.11.self_attn.q_proj.bias"] == Place("blk.11.attn_q.bias", None)
    assert found["lm_head.weight"] == Place("output.weight", None)
    assert places(Gguf(), ["model.layers.0.self_attn.rotary_emb.inv_freq", "model.layers.0.x.weight"]) == {}
    experts = Gguf(tensors={"blk.{}.ffn_up_exps": "model.layers.{}.mlp.experts.{}.up_proj"})
    name = "model.layers.2.mlp.experts.7.up_proj.weight"
    assert places(experts, [name]) == {name: Place("blk.2.ffn_up_exps.weight", 7)}


def test_all_that_does_not_fit_is_said_at_once():
    needed = {f"w{i:02}": (4, 2) for i in range(MOST_LISTED + 4)}
    held = {"w00": (4, 2), "w01": (2, 4), "w02": (8,), "x": (1,), "y": (1,)}
    said = unfitting(needed, held, str.upper, "this model")
    assert said == (
        "holds the tensors 'x', 'y', which this model does not have; tensor 'W01' has shape (2, 4), but its config "
        "needs (4, 2); tensor 'W02' has shape (8,), but its config needs (4, 2); the tensors 'W03', 'W04', 'W05', "
        "'W06', 'W07', 'W08', 'W09', 'W10', 'W11', 'W12', and 1 more are missing"
    )
    assert unfitting(needed, needed, str, "this model") == ""


@pytest.mark.parametrize("format", ENCODABLE)
def test_rows_of_a_weight(format):
    """Rows of a fused weight, and one of stacked ones: the bytes that the whole has there."""
    values = np.random.default_rng(0).standard_normal((3, 4, 64), np.float32)
    stacked = quantize(values, format)
    whole, part = stacked.decode(), stacked.part(1)
    assert (part.shape, part.format) == ((4, 64), format)
    assert (part.decode() == whole[1]).all()
    assert (part.rows(1, 3).decode() == whole[1, 1:3]).all()
    assert (stacked.rows(1, 3).decode() == whole[1:]).all()
    assert np.shares_memory(part.rows(1, 3).data, stacked.data)
    assert part.rows(1, 3).data.flags.c_contiguous
    for start, stop in ((-1, 2), (2, 2), (3, 2), (0, 5)):
        with pytest.raises(ValueError, match="has no rows"):
            part.rows(start, stop)


@pytest.mark.parametrize("format", ENCODABLE)
def test_rows_in_another_order(format):
    weight = quantize(np.random.default_rng(0).standard_normal((6, 64), np.float32), format)
    order = np.array([5, 0, 3])
    assert (weight.picked(order).decode() == weight.decode()[order]).all()
    if FORMATS[format].block_bytes > 4:
        with pytest.raises(ValueError, match="multiple of"):
            weight.transposed()
    else:
        assert (weight.transposed().decode() == weight.decode().T).all()
        assert weight.transposed().shape == (64, 6)


def test_vectors_made_of_others():
    values = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)
    one, two, three = (quantize(v, "f32") for v in values)
    assert (one.picked(np.array([7, 0, 0])).decode() == values[0, [7, 0, 0]]).all()
    assert (one.plus(1.0).decode() == values[0] + np.float32(1)).all()
    stacked = one.stacked([two, three])
    assert stacked.shape == (3, 8)
    assert (stacked.decode() == values).all()


def test_entries_of_a_vector():
    vector = quantize(np.arange(6, dtype=np.float32), "f32")
    assert vector.rows(2, 5).decode().tolist() == [2, 3, 4]


def test_rope_rows():
    rows = np.repeat(np.arange(16, dtype=np.uint8)[:, None], 3, 1)
    assert halves(rows, 2)[:, 0].tolist() == [0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15]
    assert (pairs(halves(rows, 2), 2) == rows).all()
    assert (halves(pairs(rows, 4), 4) == rows).all()


def test_orders_of_queries_keys_and_values():
    """4 query heads, 2 key heads, of 1 row: of each key head its 2 queries, the key, the value."""
    assert key_head_order(4, 2, 1).tolist() == [0, 1, 4, 6, 2, 3, 5, 7]
    assert key_head_order(2, 1, 2).tolist() == list(range(8))
    assert (key_head_order(6, 3, 5)[kind_order(6, 3, 5)] == np.arange(60)).all()


@pytest.mark.parametrize("format", ENCODABLE)
def test_tiny(format):
    a, b = TinySource(format=format, seed=3), TinySource(format=format, seed=3)
    assert a.config["model_type"] == "llama"
    expected = shapes(a.config)
    assert a.names() == list(expected)
    for name in reversed(a.names()):
        w = a.get(name)
        assert isinstance(w, Weight)
        assert w.shape == expected[name]
        assert w.format == (format if len(w.shape) == 2 else "f32")
        assert (w.data == b.get(name).data).all()
        a.release(name)
    other = TinySource(format=format, seed=4)
    assert (other.get("model.norm.weight").data != a.get("model.norm.weight").data).any()


def test_tiny_config():
    source = TinySource(hidden_size=128, tie_word_embeddings=False)
    assert source.config["head_dim"] == 32
    assert source.get("lm_head.weight").shape == (320, 128)
    for wrong in ({"hidden": 3}, {"num_key_value_heads": 3}, {"head_dim": 15}, {"format": "q9_0"}):
        with pytest.raises(ValueError, match=r"unknown|heads"):
            TinySource(**wrong)
    with pytest.raises(ValueError, match="multiple of 32"):
        TinySource(format="q4_0", intermediate_size=50)
    for wrong in ({"model_type": "no_such"}, {"sliding_window": 7}, {"model_type": "qwen2", "attention_bias": True}):
        with pytest.raises(ValueError, match=r"unknown field|the family 'no_such'"):
            TinySource(**wrong)


def test_weights_of_every_family():
    """What a family has besides Llama's: biases and norms of heads, under their published names."""

    def more(**config):
        return {n.removeprefix("model.layers.0."): shape for n, shape in shapes(TinySource(**config).config).items()
                if n.startswith("model.layers.0.") and n not in shapes(TINY)}  # fmt: skip

    q, k, v, o = (f"self_attn.{part}_proj.bias" for part in "qkvo")
    assert more() == more(model_type="mistral", sliding_window=7) == {}
    assert more(model_type="qwen2") == {q: (64,), k: (32,), v: (32,)}
    assert more(attention_bias=True) == {q: (64,), k: (32,), v: (32,), o: (64,)}
    assert more(mlp_bias=True) == {
        f"mlp.{part}_proj.bias": (n,) for part, n in (("gate", 128), ("up", 128), ("down", 64))
    }
    norms = {"self_attn.q_norm.weight": (16,), "self_attn.k_norm.weight": (16,)}
    assert more(model_type="qwen3") == norms
    assert more(model_type="qwen3", attention_bias=True).keys() == {q, k, v, o, *norms}
    biased = TinySource(model_type="qwen2", format="q8_0")
    assert biased.get("model.layers.0." + q).format == "f32"
    assert abs(biased.get("model.layers.0." + q).decode()).max() < 2
