"""Against transformers: the mathematics of every family, in float32, on tiny random checkpoints of its own."""

from __future__ import annotations

import numpy as np
import pytest

import rounding
import theirs
import tiny
from configs import ROWS

torch = pytest.importorskip("torch", reason="needs torch; `make test-torch` installs it")
transformers = pytest.importorskip("transformers", reason="needs transformers; `make test-torch` installs it")

from quickbrown.backends.native.runner import NativeRunner  # noqa: E402
from quickbrown.models.rope import rope  # noqa: E402
from quickbrown.text.gguf_vocab import tokenizer_from_gguf  # noqa: E402
from quickbrown.weights import hub  # noqa: E402
from quickbrown.weights.gguf import GgufSource  # noqa: E402
from quickbrown.weights.tiny import TinySource  # noqa: E402

LENGTH = 40


def step(model, tokens, rows=None):
    """One batch of a whole text."""
    table = np.arange(-(-len(tokens) // tiny.BLOCK))
    part = tiny.Part(tokens, 0, len(tokens), table, rows, tiny.span(model, len(tokens)), **tiny.states(model))
    return tiny.batch([part], table)


DELTA = ("qwen3_5", "qwen3_next")  # whose delta rule torch computes by chunks: what that may change grows with them


def side(model):
    """Torch's, for `rounding.close`."""
    return {"any_order": True, "angle_steps": theirs.steps(model.config)}


@pytest.mark.parametrize("fields", ROWS.values(), ids=list(ROWS))
def test_logits_in_float32(fields):
    """Transformers' logits of two texts at once, and ours of each, whole and in chunks, against the reference.

    Each side's gap is within what `rounding.close` derives for it: for torch, sums in any order and angles computed in
    float32; so native and transformers are as near as the sum of both. A rotation of neighbouring pairs instead of
    halves, a query head reading another key head, or a mask one key too wide moves logits by a tenth of their size and
    more; what is allowed is below a thousandth, or 4 where torch makes matrix products of a recurrence.
    """
    source = TinySource(**fields)
    made, model = theirs.model(source), tiny.model(source)
    texts = [tiny.text(LENGTH, seed) for seed in (0, 1)]
    with torch.no_grad():
        together = made(torch.tensor(np.stack(texts), dtype=torch.long)).logits.numpy()
    native = NativeRunner(model, blocks=2, threads=2, dtype="float32")
    for text, want in zip(texts, together, strict=True):
        batch = step(model, text)
        gap, allowed = rounding.close("torch", want, model, text, batch, "f32", **side(model))
        assert gap > 0, "compared with itself"
        assert allowed < (4e-3 if made.config.model_type.startswith(DELTA) else 1e-3)
        for chunk in (LENGTH, 7):
            got = tiny.logits(native, text, chunk, span=tiny.span(model, LENGTH))
            rounding.close(f"native by {chunk}", got, model, text, batch, "f32")


@pytest.mark.parametrize("family", ["mistral", "qwen2", "qwen3"])
def test_windows_of_long_texts(family):
    """More than two chunks of 256 keys, most of which the last tokens do not see."""
    fields = {"sliding_window": 50, "max_position_embeddings": 1024}
    if family != "mistral":
        fields |= {"use_sliding_window": True, "layer_types": ("sliding_attention", "sliding_attention")}
    source, text = TinySource(model_type=family, **fields), tiny.text(560)
    model = tiny.model(source)
    rows = [49, 50, 255, 256, 305, 306, 511, 512, 559]
    want = theirs.logits(theirs.model(source), text)[rows]
    batch = step(model, text, rows)
    rounding.close("torch", want, model, text, batch, "f32", **side(model))
    native = NativeRunner(model, blocks=9, threads=2, dtype="float32")
    native.run(batch)
    rounding.close("native", native.logits(), model, text, batch, "f32")


def test_the_bound_would_see_a_wrong_rotation():
    """Pairs of neighbours instead of halves, the other convention of rope: far outside."""
    source, text = TinySource(), tiny.text(LENGTH)
    model = tiny.model(source)
    q = model.layers[0].q.weight
    mixed = np.ascontiguousarray(q.data.reshape(4, 2, 8, -1).swapaxes(1, 2).reshape(q.data.shape))
    model.layers[0].q.weight = rounding.Weight("f32", q.shape, mixed)
    want = theirs.logits(theirs.model(source), text)
    with pytest.raises(AssertionError, match="elements lie outside their bound"):
        rounding.close("torch", want, model, text, step(model, text), "f32", **side(model))


WRONG = {
    "mistral": {"sliding_window": 8},
    "qwen3": {"rms_norm_eps": 1e-3},
    "llama, yarn": {"rope_parameters": ROWS["llama, yarn"]["rope_parameters"] | {"attention_factor": 1.1}},
    "llama, longrope, long": {
        "rope_parameters": ROWS["llama, longrope, long"]["rope_parameters"] | {"original_max_position_embeddings": 40}
    },
}


@pytest.mark.parametrize(("name", "wrong"), WRONG.items(), ids=list(WRONG))
def test_the_bound_would_see_a_wrong_option(name, wrong):
    """One key too many, another eps, another factor, the other side of the switch."""
    fields, text = ROWS[name], tiny.text(LENGTH)
    model = tiny.model(TinySource(**fields | wrong))
    want = theirs.logits(theirs.model(TinySource(**fields)), text)
    with pytest.raises(AssertionError, match="elements lie outside their bound"):
        rounding.close("torch", want, model, text, step(model, text), "f32", **side(model))


def test_frequencies_of_random_parameters():
    """Every type with parameters that nobody chose, of short and long texts; tests/pure/test_rope.py has the chosen."""
    random = np.random.default_rng(0)
    for _ in range(60):
        dim, trained = 2 * int(random.integers(2, 65)), int(random.integers(16, 10000))
        factor, kind = (
            float(random.uniform(1, 16)),
            str(random.choice(["linear", "dynamic", "yarn", "longrope", "llama3"])),
        )
        given = {"rope_type": kind, "rope_theta": float(10 ** random.uniform(3, 7)), "factor": factor}
        longest = trained
        if kind in ("yarn", "longrope", "llama3"):
            longest = int(trained * factor) + 1
            given["original_max_position_embeddings"] = trained
        if kind == "yarn":
            given |= {"beta_fast": float(random.uniform(8, 64)), "beta_slow": float(random.uniform(0.5, 4))}
        if kind == "longrope":
            given |= {name: random.uniform(1, 30, dim // 2).tolist() for name in ("short_factor", "long_factor")}
        if kind == "llama3":
            low = float(random.uniform(0.5, 2))
            given |= {"low_freq_factor": low, "high_freq_factor": low + float(random.uniform(1, 4))}
        ours = rope(given, dim, longest)
        for length in (trained // 2, trained + 1, 3 * longest):
            want, want_factor = theirs.rotation(given, dim, longest, length)
            got, got_factor = ours.angles(ours.span(length))
            steps = theirs.angle_steps(given, dim)
            np.testing.assert_allclose(got, want, rtol=steps * rounding.U, atol=0, err_msg=str(given))
            assert got_factor == pytest.approx(want_factor, rel=1e-12)


TEXTS = [
    "The quick brown fox jumps over the lazy dog.",
    "Numbers 12345 and 3.14159, 1,000,000 and 007; v2.0.1-rc3",
    "  two spaces\n\n\ttabs\r\n   three at the end   ",
    "naïve café — 日本語 🙂👩‍👩‍👧 Привет, мир! ﷺ \u200b zero width",
    "don't you'll I'M we've SHE'D",
    "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|><|endoftext|>glued<|im_end|>",
    "def f(x):\n    return {'a': [1, 2], \"b\": x**2}  # comment",
    "https://example.org/a_b?c=d&e=%20#frag user@host.org",
    "ÀÉÎõü \ufb01ligature e\u0301 combining \u00a0nbsp\u3000wide",
    "a" * 300,
    "\x00\x01\x7f control",
    " ",
    "\n",
]


def test_tokens_of_the_default_model():
    """The same ids as the tokenizer that transformers builds from the same file, for texts whose pieces meet every
    branch: digits, runs of spaces, contractions, scripts, emoji, control tokens, bytes that are no letter."""
    pytest.importorskip("gguf", reason="transformers reads GGUF files with gguf; `pip install gguf` runs this")
    model = hub.catalogue()["smollm2-135m"]
    if not model.present:
        pytest.skip(f"{model.path} is not here; `qb pull smollm2-135m` fetches it for this test")
    known = transformers.AutoTokenizer.from_pretrained(str(model.path.parent), gguf_file=model.path.name)
    ours = tokenizer_from_gguf(GgufSource(model.path).metadata, model.path)
    for text in TEXTS:
        assert list(ours.encode(text)) == known(text)["input_ids"], repr(text)
