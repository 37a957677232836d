"""Every family against logits and texts of transformers (tests/golden/transformers/make_logits.py), without torch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import rounding
import theirs
import tiny
from configs import ROWS
from quickbrown.backends.native.runner import NativeRunner
from quickbrown.backends.reference import ReferenceRunner
from quickbrown.weights.tiny import TinySource

FOLDER = Path(__file__).parents[1] / "golden" / "transformers" / "logits"
CASES = {
    name: case
    for file in sorted(FOLDER.glob("*.json"))
    for name, case in json.loads(file.read_text("utf-8"))["cases"].items()
}
RUNNERS = {
    "reference": lambda model: ReferenceRunner(model, kv="f32"),
    "native": lambda model: NativeRunner(model, blocks=16, threads=2, dtype="float32"),
}
# Not where angles follow the length of the text: transformers' at every step, ours from the start.
WRITTEN = {name: case for name, case in CASES.items() if case["written"]}


def model_of(case):
    return tiny.model(TinySource(seed=case["seed"], **case["config"]))


def test_every_row_has_a_golden():
    assert CASES.keys() == ROWS.keys(), "run tests/golden/transformers/make_logits.py"
    for name, case in CASES.items():
        said = {field: case["config"].get(field) for field in ROWS[name]}
        assert json.dumps(said) == json.dumps(ROWS[name]), name


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_the_reference_has_their_logits(case):
    """Within what their float32 sums and angles explain, and the six digits that were kept: a thousandth of what a
    wrong bias, norm, window or rotation would change."""
    model, tokens = model_of(case), np.array(case["tokens"])
    table = np.arange(-(-len(tokens) // tiny.BLOCK))
    span = tiny.span(model, len(tokens))
    part = tiny.Part(tokens, 0, len(tokens), table, case["positions"], span, **tiny.states(model))
    side = {"any_order": True, "angle_steps": theirs.steps(model.config)}
    want = np.array(case["logits"], np.float32)
    gap, allowed = rounding.close("logits", want, model, tokens, tiny.batch([part], table), "f32", **side)
    assert 0 < gap <= allowed < 1e-3


@pytest.mark.parametrize("case", WRITTEN.values(), ids=list(WRITTEN))
@pytest.mark.parametrize("runner", RUNNERS)
def test_the_likeliest_tokens_are_theirs(case, runner):
    """16 tokens, one a step: keys and values of what was read before come from memory."""
    model, text, past = model_of(case), list(case["tokens"]), 0
    runner = RUNNERS[runner](model)
    longest = len(text) + len(case["written"])
    table, span = np.arange(-(-longest // tiny.BLOCK)), tiny.span(model, longest)
    for step, want in enumerate(case["written"]):
        part = tiny.Part(np.array(text), past, len(text), table, [-1], span, **tiny.states(model, step))
        runner.run(tiny.batch([part], table if not past else tiny.NONE))
        assert int(runner.logits()[0].argmax()) == want, f"after {len(text)} tokens"
        past = len(text)
        text.append(want)
