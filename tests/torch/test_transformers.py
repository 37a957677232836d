"""Against transformers: the mathematics of every family, in float32, on tiny random checkpoints of its own."""

from __future__ import annotations

import numpy as np
import pytest

import rounding
import tiny

torch = pytest.importorskip("torch", reason="needs torch; `make test-torch` installs it")
transformers = pytest.importorskip("transformers", reason="needs transformers; `make test-torch` installs it")

from quickbrown.backends.native.runner import NativeRunner  # noqa: E402
from quickbrown.models.llama import Config  # noqa: E402
from quickbrown.quant.quantize import quantize  # noqa: E402
from quickbrown.text.gguf_vocab import tokenizer_from_gguf  # noqa: E402
from quickbrown.weights import hub  # noqa: E402
from quickbrown.weights.gguf import GgufSource  # noqa: E402

BASE = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 320,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
}
CONFIGS = {
    "grouped heads": {},
    "tied": {"tie_word_embeddings": True},
    "one query head a key head": {"num_key_value_heads": 4},
    "one key head": {"num_key_value_heads": 1},
    "wide heads": {"head_dim": 32},
    "derived head_dim": {"hidden_size": 96, "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": None},
    "theta and eps": {"rope_theta": 500000.0, "rms_norm_eps": 1e-3, "num_hidden_layers": 3},
    "odd sizes": {"hidden_size": 68, "intermediate_size": 101, "head_dim": 16, "vocab_size": 323},
}


def theirs(fields):
    """A LlamaForCausalLM of random weights, so strong that every layer moves the logits, and norms that are not 1."""
    fields = dict(fields)
    theta = fields.pop("rope_theta", 10000.0)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        **fields, rope_parameters={"rope_type": "default", "rope_theta": theta}, attn_implementation="eager"
    )
    model = transformers.LlamaForCausalLM(config).float().eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(1.0, 0.1) if weight.ndim == 1 else weight.normal_(0.0, 0.5 * weight.shape[1] ** -0.5)
        model.model.embed_tokens.weight.normal_(0.0, 0.3)
    return model, theta


def ours(model, theta):
    """The family object of the same weights, under their published names."""
    c = model.config
    config = {name: getattr(c, name, None) for name in Config.__dataclass_fields__} | {"rope_theta": theta}
    config["head_dim"] = c.head_dim or c.hidden_size // c.num_attention_heads
    weights = {name: quantize(value.numpy(), "f32") for name, value in model.state_dict().items()}
    return tiny.model_of(config, weights)


@pytest.mark.parametrize("fields", CONFIGS.values(), ids=list(CONFIGS))
def test_logits_in_float32(fields):
    """Transformers' logits of two texts at once, and ours of each, whole and in chunks, against the reference.

    Each side's gap is within what `rounding.close` derives for it: for torch, sums in any order and angles computed in
    float32; so native and transformers are as near as the sum of both. A rotation of neighbouring pairs instead of
    halves, a query head reading another key head, or a mask one key too wide moves logits by a tenth of their size and
    more; what is allowed is below a thousandth.
    """
    model, theta = theirs(BASE | fields)
    family = ours(model, theta)
    texts = [tiny.text(40, seed, BASE["vocab_size"]) for seed in (0, 1)]
    with torch.no_grad():
        together = model(torch.tensor(np.stack(texts), dtype=torch.long)).logits.numpy()
    native = NativeRunner(family, blocks=2, threads=2, dtype="float32")
    for text, want in zip(texts, together, strict=True):
        table = np.zeros(1, np.int32)
        batch = tiny.batch([tiny.Part(text, 0, 40, table)], table)
        gap, allowed = rounding.close("torch", want, family, text, batch, "f32", any_order=True)
        assert gap > 0, "compared with itself"
        assert allowed < 1e-3
        for chunk in (40, 7):
            rounding.close(f"native by {chunk}", tiny.logits(native, text, chunk), family, text, batch, "f32")


def test_the_bound_would_see_a_wrong_rotation():
    """Pairs of neighbours instead of halves, the other convention of rope: far outside."""
    model, theta = theirs(BASE)
    family = ours(model, theta)
    q = family.layers[0].q
    mixed = np.ascontiguousarray(q.data.reshape(4, 2, 8, -1).swapaxes(1, 2).reshape(q.data.shape))
    family.layers[0].q = rounding.Weight("f32", q.shape, mixed)
    text, table = tiny.text(40), np.zeros(1, np.int32)
    batch = tiny.batch([tiny.Part(text, 0, 40, table)], table)
    with torch.no_grad():
        want = model(torch.tensor(text[None], dtype=torch.long)).logits[0].numpy()
    with pytest.raises(AssertionError, match="elements lie outside their bound"):
        rounding.close("torch", want, family, text, batch, "f32", any_order=True)


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
    theirs = transformers.AutoTokenizer.from_pretrained(str(model.path.parent), gguf_file=model.path.name)
    ours = tokenizer_from_gguf(GgufSource(model.path).metadata, model.path)
    for text in TEXTS:
        assert list(ours.encode(text)) == theirs(text)["input_ids"], repr(text)
