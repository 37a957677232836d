"""Rotations: transformers' frequencies for every type (tests/golden/transformers/make_rope.py), and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import theirs
from quickbrown.models.rope import rope

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/transformers/rope.json").read_text("utf-8"))
CASES = GOLDEN["cases"]
THETA = {"rope_theta": 10000.0}
LISTS = {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8}


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['rope_parameters']['rope_type']}-{CASES.index(c)}")
def test_frequencies_are_theirs(case):
    """In float64 where theirs are float32: apart by as many roundings as an angle of theirs has."""
    parameters, longest = case["rope_parameters"], case["max_position_embeddings"]
    rotation = rope(parameters, case["head_dim"], longest)
    known = parameters | {
        "factor": parameters.get("factor") or longest / parameters.get("original_max_position_embeddings", longest)
    }
    steps = theirs.angle_steps(known, case["head_dim"])
    for text in case["texts"]:
        frequencies, factor = rotation.angles(rotation.span(text["length"]))
        assert frequencies.dtype == np.float64
        np.testing.assert_allclose(frequencies, text["frequencies"], rtol=steps * 2.0**-24, atol=0)
        assert factor == pytest.approx(text["factor"], rel=1e-12)


def test_every_type_is_there():
    assert GOLDEN["transformers"] == "5.23.0"
    types = {case["rope_parameters"]["rope_type"] for case in CASES}
    assert types == {"default", "linear", "proportional", "dynamic", "yarn", "longrope", "llama3"}


def test_spans():
    """What two texts must share to be turned alike: nothing, their length, or the side of the trained length."""
    dynamic = rope({"rope_type": "dynamic", "factor": 2.0} | THETA, 16, 100)
    assert [dynamic.span(length) for length in (1, 100, 101, 500)] == [0, 0, 101, 500]
    long = rope({"rope_type": "longrope", "original_max_position_embeddings": 100} | THETA | LISTS, 16, 400)
    assert [long.span(length) for length in (1, 100, 101, 500)] == [0, 0, 1, 1]
    plain = rope({"rope_type": "linear", "factor": 2.0} | THETA, 16, 100)
    assert plain.span(10**6) == 0
    assert (dynamic.angles(101)[0] != dynamic.angles(500)[0])[1:].all()
    assert (long.angles(1)[0] * 2 == long.angles(0)[0]).all()


def test_ropes_are_told_apart_by_identity():
    a, b = (rope(THETA, 16, 100) for _ in range(2))
    assert len({a, b, a}) == 2


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"rope_type": "axial"}, r"rope_type is 'axial'; the types that are supported are default, lin"),
        ({"rope_type": ["yarn"]}, r"rope_type is \['yarn'\]"),
        ({"rope_theta": None}, r"rope_type 'default' needs rope_theta, a number above 0"),
        ({"rope_theta": 0}, r"rope_theta of rope_type 'default' must be a number above 0, not 0"),
        ({"rope_theta": True}, r"must be a number above 0, not True"),
        ({"rope_theta": float("nan")}, r"must be a number above 0, not nan"),
        ({"rope_theta": float("inf")}, r"must be a number above 0, not inf"),
        ({"rope_theta": "10000"}, r"must be a number above 0, not '10000'"),
        ({"factor": 2.0}, r"rope_type 'default': unknown option 'factor'"),
        ({"rope_type": "linear"}, r"rope_type 'linear' needs factor"),
        ({"rope_type": "linear", "factor": -1}, r"factor of rope_type 'linear' must be a number above 0, not -1"),
        ({"partial_rotary_factor": 1.5}, r"partial_rotary_factor must be a number above 0 and at most 1, not 1.5"),
        ({"partial_rotary_factor": "1"}, r"partial_rotary_factor must be a number above 0 and at most 1, not '1'"),
        ({"partial_rotary_factor": 0.2}, r"heads have 16 values, of which 3 turn, and rotary positions need an even"),
        ({"rope_type": "yarn", "factr": 4.0}, r"unknown option 'factr'; did you mean 'factor'\?"),
        ({"rope_type": "yarn", "rope_theta": 1.0}, r"rope_theta of rope_type 'yarn' must be a number above 1, not 1"),
        ({"rope_type": "yarn", "truncate": "no"}, r"truncate of rope_type 'yarn' must be true or false, not 'no'"),
        ({"rope_type": "yarn", "mscale": -1.0}, r"mscale of rope_type 'yarn' must be a number of at least 0, not -1"),
        (
            {"rope_type": "yarn", "original_max_position_embeddings": 2.5},
            r"original_max_position_embeddings of rope_type 'yarn' must be a whole number above 1, not 2.5",
        ),
        ({"rope_type": "longrope"}, r"rope_type 'longrope' needs short_factor, a list of 8 numbers above 0"),
        ({"rope_type": "longrope"} | LISTS | {"long_factor": [1.0] * 7}, r"long_factor .* must be a list of 8 numbers"),
        ({"rope_type": "longrope"} | LISTS | {"long_factor": ["1"] * 8}, r"long_factor .* must be a list of 8 numbers"),
        ({"rope_type": "longrope"} | LISTS | {"long_factor": [0] * 8}, r"long_factor .* must be a list of 8 numbers"),
        (
            {"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4},
            r"high_freq_factor of rope_type 'llama3' must be a number above 4, not 4",
        ),
    ],
)
def test_refused(parameters, message):
    with pytest.raises(ValueError, match=message):
        rope(THETA | parameters, 16, 128)


@pytest.mark.parametrize("dim", [0, 1, 15])
def test_heads_that_cannot_be_turned(dim):
    with pytest.raises(ValueError, match="an even number"):
        rope(THETA, dim, 128)
    with pytest.raises(ValueError, match="at least 4"):
        rope({"rope_type": "dynamic", "factor": 2.0} | THETA, 2, 128)


@pytest.mark.parametrize(("kind", "reach"), [("dynamic", 1024), ("linear", 256)])
def test_a_dynamic_rotation_reaches_further(kind, reach):
    """A linear one is trained with its factor: its positions are those of config.json."""
    turn = rope({"rope_type": kind, "rope_theta": 10000.0, "factor": 4.0}, 16, 256)
    assert turn.reach(256) == reach
