"""Quantized checkpoints, from a folder to texts: those of the same values in float32."""

from __future__ import annotations

import numpy as np
import pytest

import quantized
import rounding
import tiny
import variants
from encoded import random_weight
from quickbrown import LLM, AutoModelForCausalLM, _native
from quickbrown.backends.native.eager import NativeOps
from quickbrown.backends.native.record import Recorder
from quickbrown.backends.native.runner import NativeRunner
from quickbrown.backends.reference import ReferenceOps
from quickbrown.cli import main
from quickbrown.models.ops import KvLayer
from quickbrown.quant.weight import Weight
from quickbrown.weights.safetensors import SafetensorsSource

ONE = [KvLayer(1, 16, 16)]
IDS = tiny.text(40, vocabulary=500).tolist()


@pytest.fixture(scope="module", params=quantized.CHECKPOINTS)
def folders(request, tmp_path_factory):
    return request.param, *quantized.write(tmp_path_factory.mktemp("quantized"), request.param)


def test_a_checkpoint_and_its_twin(folders):
    """In float32 the very bits of the twin (of columns in another order: the same sums, added up otherwise); packed,
    within what roundings explain of the reference, which reads the same bytes."""
    name, folder, twin = folders
    exact, want = LLM(folder, dtype="float32", memory="8MB"), LLM(twin, dtype="float32", memory="8MB")
    tokens = np.array(IDS, np.int32)
    batch = tiny.batch([tiny.Part(tokens, 0, len(IDS), np.zeros(1, np.int32))], np.zeros(1, np.int32))
    if name == "gptq order":
        model = tiny.model(SafetensorsSource(twin))
        rounding.close("logits", exact.logits(IDS), model, tokens, batch, "f32", any_order=True)
    else:
        assert exact.logits(IDS).tobytes() == want.logits(IDS).tobytes()
    texts = [llm.generate([IDS], max_new_tokens=12, ignore_eos=True)[0].tokens for llm in (exact, want)]
    assert texts[0] == texts[1]

    model = tiny.model(SafetensorsSource(folder))
    for wide in (False, True):
        llm = LLM(folder, memory="8MB", activations="bf16" if wide else "auto")
        rounding.close("packed", llm.logits(IDS), model, tokens, batch, "bf16", wide=wide)
        error = np.linalg.norm(llm.logits(IDS) - want.logits(IDS)) / np.linalg.norm(want.logits(IDS))
        assert 0 < error < 0.03


def test_what_is_held(folders, capsys):
    """As small as it was published, where a format can; `qb info` says so."""
    name, folder, _ = folders
    llm = LLM(folder, memory="8MB")
    format = quantized.CHECKPOINTS[name][2]
    facts = llm.info()
    assert set(facts["held_as"]) == {format, "f32"} == set(facts["held_as"].values())
    assert facts["quantization"].startswith(quantized.CHECKPOINTS[name][0]["quant_method"])
    assert main.call(["info", str(folder)]) == 0
    out = capsys.readouterr().out
    assert f"  {facts['quantization']}\n" in out
    assert f"  {format}" in out
    assert main.call(["generate", "-m", str(folder), "--max-new-tokens", "3", "a text"]) == 0


def test_company_changes_nothing(folders):
    """Promise 1: whole or in chunks, on one thread or three, fused or a verb at a time."""
    _, folder, _ = folders
    model = tiny.model(SafetensorsSource(folder))
    tokens = np.array(IDS, np.int32)
    want = tiny.logits(NativeRunner(model, blocks=1, threads=1), tokens, 1).tobytes()
    for threads, chunk, fused in ((1, 40, True), (3, 17, True), (2, 4, False)):
        runner = NativeRunner(model, blocks=1, threads=threads, fused=fused)
        assert tiny.logits(runner, tokens, chunk).tobytes() == want, (threads, chunk, fused)


def test_the_face_of_transformers(folders):
    """AutoModelForCausalLM loads it as LLM does, and may hold it in another format yet."""
    name, folder, _ = folders
    model = AutoModelForCausalLM.from_pretrained(folder)
    prompt = np.array([IDS])
    written = model.generate(prompt, max_new_tokens=5, do_sample=False, min_new_tokens=5)
    llm = LLM(folder, memory="8MB")
    want = llm.generate([IDS], max_new_tokens=5, ignore_eos=True)[0].tokens
    assert tuple(written[0, len(IDS) :].tolist()) == want
    held = LLM(folder, memory="8MB", quantize="q8").info()["held_as"]
    wide = {"f32", "q8_0", "u8z"}
    assert (quantized.CHECKPOINTS[name][2] in wide) == ("q8_0" in "".join(held.values()))


@pytest.mark.parametrize("format", ["u4z", "q4_0", "u8z", "f32", "bf16", "q6_k"])
@pytest.mark.parametrize("count", [1, 3, 9])
def test_columns_in_another_order(format, count):
    """The very bits of a linear whose input was put into that order before."""
    dice = np.random.default_rng(count)
    w = random_weight(format, (48, 256), dice)
    x, order = dice.standard_normal((count, 256)).astype(np.float32), dice.permutation(256)
    moved = Weight(w.format, w.shape, w.data, order)
    native, reference = NativeOps(ONE, 1), ReferenceOps(ONE, 1)
    got = native.linear(x, moved)
    assert got.tobytes() == native.linear(x[:, order], w).tobytes()
    assert got.tobytes() != native.linear(x, w).tobytes()
    rounding.compare("ordered", got, reference.linear(x, moved), rounding.linear(x, moved))
    exact = x.astype(np.float64) @ moved.decode().T
    assert np.linalg.norm(got - exact) < 0.02 * np.linalg.norm(exact)
    with pytest.raises(ValueError, match="put back for linears only"):
        native.embed(moved, np.array([0], np.int32))


def test_one_order_is_made_once():
    """Linears of one input share it; each order is another instruction, and an order that cannot be is refused."""
    recorder = Recorder()
    x = recorder.embed(Weight("f32", (4, 32), np.zeros((4, 128), np.uint8)), None)
    orders = [np.arange(32)[::-1].copy(), np.roll(np.arange(32), 1)]
    for which in (0, 1, 0):
        recorder.linear(x, Weight("f32", (16, 32), np.zeros((16, 128), np.uint8), orders[which]))
    assert [verb.name for verb in recorder.verbs] == ["embed", "columns", "linear", "columns", "linear", "linear"]
    pool = _native.Pool(1)
    plan = _native.Plan(pool, _native.Weights(64, pool), _native.KvMemory("f32", 1, ONE))
    a, b, wide = plan.buffer(3), plan.buffer(3), plan.buffer(4)
    for order, out, said in (
        ([0, 1, 3], b, "no column of that number"),
        ([0, -1, 2], b, "no column of that number"),
        ([0, 1], b, "does not fit"),
        ([0, 1, 2], wide, "does not fit"),
        ([2, 1, 0], a, "does not fit"),
    ):
        with pytest.raises(ValueError, match=said):
            plan.columns(a, np.array(order, np.int64), out)
    plan.columns(a, np.array([2, 2, 0], np.int64), b)


class TestOtherInstructionSets:
    pytestmark = variants.outer_only

    def test_under(self, name):
        """All of the above under each other instruction set of this machine."""
        variants.again(__file__, name)
