"""LLM on folders of safetensors: how weights are held, what is refused, and what it takes while it loads."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from checkpoints import write_checkpoint
from quickbrown import LLM, AutoModelForCausalLM, BitsAndBytesConfig
from quickbrown.weights.source import BadFile

IDS = [[1, 300, 301, 302, 303]]
WIDE = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 8}  # whole blocks of every format


def logits(llm):
    return llm.logits(IDS[0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("loading") / "bf16", dtype="bf16", seed=5, **WIDE)


@pytest.mark.parametrize("model_type", ["llama", "mistral", "qwen2", "qwen3"])
def test_shards_are_the_same_model(tmp_path, model_type):
    kind = {"model_type": model_type, "dtype": "bf16", "tokenizer": None}
    one, three = (write_checkpoint(tmp_path / str(n), shards=n, **kind) for n in (1, 3))
    assert (logits(LLM(one, memory="8MB")) == logits(LLM(three, memory="8MB"))).all()


class TestHeld:
    @pytest.mark.parametrize(
        ("published", "options", "held"),
        [
            ("bf16", {}, "bf16"),
            ("f16", {}, "f16"),
            ("f32", {}, "f32"),
            ("f32", {"dtype": "bfloat16"}, "bf16"),
            ("f16", {"dtype": "bfloat16"}, "bf16"),
            ("bf16", {"dtype": "float32"}, "f32"),
        ],
    )
    def test_dtype(self, tmp_path, published, options, held):
        llm = LLM(write_checkpoint(tmp_path / "tiny", dtype=published, **WIDE), memory="8MB", **options)
        assert llm.info()["held_as"] == {published: held}
        llm.generate(IDS, max_new_tokens=2)

    @pytest.mark.parametrize(
        ("keywords", "format"),
        [
            ({"load_in_4bit": True}, "q4_1"),
            ({"load_in_8bit": True}, "q8_0"),
            ({"quantization_config": BitsAndBytesConfig(load_in_8bit=True)}, "q8_0"),
            ({"quantization_config": BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")}, "nf4"),
            ({"quantization_config": {"load_in_4bit": True}}, "fp4"),
        ],
    )
    def test_quantized_while_loading(self, folder, keywords, format):
        """The head and the embedding stay; all other linear weights change; what they mean does not change much."""
        plain = AutoModelForCausalLM.from_pretrained(folder, memory="8MB")
        small = AutoModelForCausalLM.from_pretrained(folder, memory="8MB", **keywords)
        weights, model = small.llm.runner.weights, small.llm.model
        assert weights.format(model.head) == weights.format(model.embedding) == "bf16"
        layers = model.layers[0]
        assert {weights.format(w.weight) for w in (layers.q, layers.k, layers.v, layers.o)} == {format}
        assert small.get_memory_footprint() < plain.get_memory_footprint()
        a, b = plain(IDS).logits, small(IDS).logits
        error = np.linalg.norm(a - b) / np.linalg.norm(a)
        assert 0 < error < {"q8_0": 0.03, "q4_1": 0.25, "nf4": 0.3, "fp4": 0.4}[format]
        assert small.generate(IDS, max_new_tokens=3)[0][:5] == IDS[0]

    def test_what_is_small_already_stays(self):
        """The default model's linear weights have 5 bits a value, and its head 8."""
        held = LLM("smollm2-135m", quantize="q4", memory="64MB").info()["held_as"]
        assert "q4_1" in held
        assert all(published == kept for published, kept in held.items())


class TestVocabularyOfAFolder:
    def test_texts_are_written_without_building_it(self, tmp_path):
        llm = LLM(write_checkpoint(tmp_path, chat_template="{{ messages[0].content }}"), memory="8MB")
        llm.generate("The quick brown", max_new_tokens=3)
        llm.chat([{"role": "user", "content": "fox"}], max_new_tokens=3)
        assert llm.tokenizer._unbuilt is not None


class TestWithoutVocabulary:
    def test_ids_in_ids_out(self, tmp_path):
        llm = LLM(write_checkpoint(tmp_path / "bare", tokenizer=None), memory="8MB")
        done = llm.generate([[1, 5, 6]], max_new_tokens=3, ignore_eos=True)[0]
        assert len(done.tokens) == 3
        assert done.text == ""
        for wrong in (lambda: llm.generate("text"), lambda: llm.generate([[1, 5]], stop="x")):
            with pytest.raises(BadFile, match=r"tokenizer\.json is needed"):
                wrong()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"quantize": "q5"}, "quantize must be"),
        ({"quantize": "q4", "dtype": "float32"}, "or quantize"),
        ({"dtype": "float16"}, "dtype must be"),
    ],
)
def test_refusals(folder, options, said):
    with pytest.raises(ValueError, match=said):
        LLM(folder, **options)


PEAK = """
def peak():  # of this process alone, in kB: getrusage would begin with what the parent had
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])

from quickbrown import LLM
import quickbrown._native, numpy, tokenizers, quickbrown.quant.quantize, quickbrown.weights.safetensors
before = peak()
llm = LLM({folder!r}, memory="4MB", {option})
print(peak() - before, llm.runner.weights.arena.bytes // 1024)
"""


@pytest.mark.parametrize("option", ["", "quantize='q4'", "quantize='nf4'", "dtype='bfloat16'"])
def test_a_model_is_never_held_twice(tmp_path_factory, option):
    """Loading takes less than 1.2 times what is held, and 40 MB for slices, threads and libraries.

    The published weights have 170 MB: a loader that read them all before packing would take at least that more.
    """
    folder = tmp_path_factory.getbasetemp() / "large"
    if not folder.exists():
        write_checkpoint(
            folder,
            model_type="llama",
            dtype="f32",
            tokenizer=None,
            hidden_size=1024,
            intermediate_size=2816,
            num_hidden_layers=3,
            num_attention_heads=16,
            num_key_value_heads=8,
            head_dim=64,
        )
    code = PEAK.format(folder=str(folder), option=option)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    taken, held = map(int, run.stdout.split())
    assert taken < 1.2 * held + 40 * 1024


@pytest.mark.parametrize(
    ("rope", "shares"),
    [({"rope_type": "dynamic", "factor": 4.0}, False), ({"rope_type": "linear", "factor": 4.0}, True)],
)
def test_a_text_rotated_by_its_length_shares_memory_with_its_like(tmp_path, rope, shares):
    """Dynamic rope turns every position by the length that the text may reach: with another, the keys are others."""
    longest = 64 if rope["rope_type"] == "dynamic" else 256
    folder = write_checkpoint(
        tmp_path / "long",
        model_type="llama",
        tokenizer=None,
        rope_parameters={"rope_theta": 10000.0} | rope,
        max_position_embeddings=longest,
    )
    llm = LLM(folder, memory="8MB")
    prompt = [1 + i * i % 300 for i in range(130)]
    first, again, longer = (llm.generate([prompt], max_new_tokens=n)[0] for n in (10, 10, 11))
    assert (first.reused_tokens, again.reused_tokens) == (0, 128)
    assert again.tokens == first.tokens
    assert longer.reused_tokens == (128 if shares else 0)
    if shares:
        assert longer.tokens[:10] == first.tokens
