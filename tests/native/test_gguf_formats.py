"""Models in formats that are only read, from a file to logits: as those of float32, and whoever is beside them."""

from __future__ import annotations

import numpy as np
import pytest

import rounding
import tiny
import variants
from encoded import NUMBERS, random_weight
from gguf_writer import tiny_llama, write_gguf
from quickbrown import LLM
from quickbrown.backends.native.runner import NativeRunner
from quickbrown.backends.reference import activation
from quickbrown.quant.formats import FORMATS
from quickbrown.quant.quantize import ENCODABLE
from quickbrown.weights.gguf import GgufSource

READ = [f for f in FORMATS if f not in ENCODABLE and FORMATS[f].ggml_type is not None and f not in NUMBERS]
HELD = {f: FORMATS[f].held or f for f in READ}
SIZES = {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 16, "num_key_value_heads": 8}
# As files of the kind "Q4_K_M" mix them: embedding, values and the way down in 6 bits, the rest in 4.
MIXED = {"token_embd": "q6_k", "attn_v": "q6_k", "ffn_down": "q6_k"}
IDS = tiny.text(40, vocabulary=260).tolist()


@pytest.fixture(scope="module", params=[*READ, "mixed"])
def file(request, tmp_path_factory):
    metadata, tensors = tiny_llama("f32", **SIZES)
    dice = np.random.default_rng(4)
    for name, weight in tensors.items():
        if len(weight.shape) == 2:
            part = name.removesuffix(".weight").split(".")[-1]
            format = MIXED.get(part, "q4_k") if request.param == "mixed" else request.param
            spread = 0.3 if part == "token_embd" else 0.5 * weight.shape[1] ** -0.5
            tensors[name] = random_weight(format, weight.shape, dice, spread)
    return write_gguf(tmp_path_factory.mktemp("formats") / f"{request.param}.gguf", metadata, tensors)


def test_logits(file):
    """Within what roundings explain of the reference, which decodes the same bytes; near those of float32."""
    source = GgufSource(file)
    model = tiny.model(source)
    tokens = np.array(IDS, np.int32)
    batch = tiny.batch([tiny.Part(tokens, 0, len(IDS), np.zeros(1, np.int32))], np.zeros(1, np.int32))
    llm, wide = LLM(file, memory="8MB"), LLM(file, memory="8MB", dtype="float32")
    assert all(HELD[published] == held for published, held in llm.info()["held_as"].items())
    assert set(wide.info()["held_as"].values()) == {"f32"}
    rounding.close("logits", llm.logits(IDS), model, tokens, batch, "bf16")
    exact, rounded = wide.logits(IDS), llm.logits(IDS)
    error = np.linalg.norm(exact - rounded) / np.linalg.norm(exact)
    assert 0 < error < 0.03
    nearer = LLM(file, memory="8MB", activations="bf16").logits(IDS)
    rounding.close("logits on bf16", nearer, model, tokens, batch, "bf16", wide=True)
    if all(activation(held) != "int8" for held in llm.info()["held_as"].values()):
        assert nearer.tobytes() == rounded.tobytes()  # nothing was rounded to int8
        return
    assert 0 < np.linalg.norm(exact - nearer) < 0.6 * np.linalg.norm(exact - rounded)


@pytest.mark.parametrize("wide", [False, True], ids=["int8", "bf16"])
def test_company_changes_nothing(file, wide):
    """Promise 1: whole or in chunks, on one thread or three, fused or a verb at a time."""
    model = tiny.model(GgufSource(file))
    tokens = np.array(IDS, np.int32)
    want = tiny.logits(NativeRunner(model, blocks=1, threads=1, wide=wide), tokens, 1).tobytes()
    for threads, chunk, fused in ((1, 40, True), (3, 17, True), (2, 3, True), (2, 4, False), (1, 1, False)):
        runner = NativeRunner(model, blocks=1, threads=threads, fused=fused, wide=wide)
        assert tiny.logits(runner, tokens, chunk).tobytes() == want, (threads, chunk, fused)


def test_texts(file):
    """Some side by side are those that each is alone; and the file may be held smaller."""
    llm = LLM(file, memory="8MB")
    prompts = [IDS[:n] for n in (3, 17, 40)]
    together = llm.generate(prompts, max_new_tokens=6, ignore_eos=True)
    assert [d.tokens for d in together] == [
        llm.generate([p], max_new_tokens=6, ignore_eos=True)[0].tokens for p in prompts
    ]
    small = LLM(file, memory="8MB", quantize="q4")
    assert {f for held in small.info()["held_as"].values() for f in held.split(", ")} <= {*HELD.values(), "q4_1", "f32"}
    assert len(small.generate([IDS], max_new_tokens=2, ignore_eos=True)[0].tokens) == 2


class TestOtherInstructionSets:
    pytestmark = variants.outer_only

    def test_under(self, name):
        """All of the above under each other instruction set of this machine."""
        variants.again(__file__, name)
