"""What a family can say in its file (models/config.py, gguf.py, blocks.py), on one made up that says all of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

import numpy as np
import pytest

import tiny
from checkpoints import write_safetensors
from gguf_writer import write_tiny_gguf
from quickbrown.backends.reference import ReferenceRunner
from quickbrown.models import families
from quickbrown.models.blocks import Decoder, Linear, RMSNorm, split
from quickbrown.models.config import SILU, Config, Count, Number, PerLayer, derived
from quickbrown.models.gguf import SETTINGS, TENSORS, Gguf
from quickbrown.models.rope import rope
from quickbrown.weights.config import resolve
from quickbrown.weights.gguf import GgufSource
from quickbrown.weights.safetensors import SafetensorsSource
from quickbrown.weights.source import BadFile
from quickbrown.weights.tiny import TinySource


@dataclass(frozen=True, kw_only=True)
class MadeUp(Config):
    ALIASES = {"hidden_size": "n_embd", "num_hidden_layers": "n_layer"}  # noqa: RUF012
    IDLE = SILU | {"clip": (None,)}
    TEXT = "text_config"
    ROPES = ("near", "far")

    vocab_size: int = 320
    hidden_size: int = 64
    intermediate_size: int = 96
    num_hidden_layers: int = 2
    num_attention_heads: int = 4
    max_position_embeddings: int = 64
    tie_word_embeddings: bool = True
    num_experts: Count = 3
    shift: Number = -0.5
    norm: Literal["before", "after"] = "before"
    cap: float | None = None
    steps: tuple[int, ...] = (1, 2)
    kept: PerLayer[bool] = derived(lambda c: (True,) * c.num_hidden_layers)
    rope_parameters: Mapping[str, Any]

    @classmethod
    def published(cls, raw):
        return {"shift" if name == "old_shift" else name: value for name, value in raw.items()}


class Model(Decoder):
    """A fused projection, a norm around 1, biases, experts one by one, names of its own."""

    EMBEDDING = "transformer.wte.weight"
    RENAMED = {r"^(wte|h)\.": r"transformer.\1.", r"^lang\.": ""}  # noqa: RUF012
    UNREAD = (r"vision\..*",)

    def __init__(self, config, weights):
        c, hidden = config, config.hidden_size
        self.config, self.layers = config, []
        self.ropes = [rope(c.rope_parameters[kind], c.head_dim, c.max_position_embeddings) for kind in c.ROPES]
        self.embedding = weights.take(self.EMBEDDING, c.vocab_size, hidden)
        for i in range(c.num_hidden_layers):
            at = f"transformer.h.{i}."
            norm = RMSNorm(weights, at + "ln", hidden, 1e-5)
            fused = list(split(weights, at + "up", (32, hidden), hidden))
            permuted = Linear(weights, at + "turned", hidden, hidden, True)
            experts = [Linear(weights, f"{at}experts.{e}.down", hidden, 32) for e in range(c.num_experts)]
            self.layers.append((norm, fused, permuted, experts))
        self.head = self.embedding if c.tie_word_embeddings else weights.take(self.HEAD, c.vocab_size, hidden)

    def forward(self, ops, tokens, batch):
        x = ops.embed(self.embedding, tokens)
        for norm, (up, across), turned, experts in self.layers:
            h = norm(ops, x)
            for expert in experts:
                x = ops.add(x, expert(ops, up(ops, h)))
            x = ops.add(x, turned(ops, across(ops, h)))
        return ops.linear(ops.rows(x, batch), self.head)


GGUF = Gguf(
    settings={
        key: field
        for key, field in SETTINGS.items()
        if field in ("num_hidden_layers", "hidden_size", "num_attention_heads", "max_position_embeddings")
    }
    | {"expert_count": "num_experts", "made.shift": "shift", "made.cap": "cap"}
    | {"rope.freq_base": "rope_parameters.far.rope_theta"},
    fixed={"rope_parameters": {"near": {"rope_type": "default", "rope_theta": 500.0}}},
    equal={},
    idle={"attention.causal": True},
    tensors={
        "token_embd": "transformer.wte", "output": TENSORS["output"], "blk.{}.norm": "transformer.h.{}.ln",
        "blk.{}.up": "transformer.h.{}.up", "blk.{}.turned": "transformer.h.{}.turned",
        "blk.{}.down_exps": "transformer.h.{}.experts.{}.down",
    },
    permuted={".turned": "num_attention_heads"},
    raised=(".ln",),
)  # fmt: skip


@pytest.fixture(autouse=True)
def made_up(monkeypatch):
    module = ModuleType("quickbrown.models.made_up")
    module.Config, module.Model, module.GGUF = MadeUp, Model, GGUF
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for table, name in ((families.MODEL_TYPES, "made_up"), (families.MODEL_TYPES, "made_up_text")):
        monkeypatch.setitem(table, name, "made_up")
    monkeypatch.setitem(families.ARCHITECTURES, "made_up", "made_up")


def test_what_config_json_may_say():
    assert resolve({"model_type": "made_up_text"}, "c") == {
        "model_type": "made_up_text", "vocab_size": 320, "hidden_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 16, "max_position_embeddings": 64,
        "tie_word_embeddings": True, "intermediate_size": 96, "num_experts": 3, "shift": -0.5, "norm": "before",
        "cap": None, "steps": (1, 2), "kept": (True, True),
        "rope_parameters": {kind: {"rope_type": "default", "rope_theta": 10000.0} for kind in ("near", "far")},
    }  # fmt: skip
    text = {"n_embd": 32, "n_layer": 1, "num_experts": 0, "old_shift": 0, "norm": "after", "cap": 3, "steps": [],
            "kept": [False], "hidden_act": "silu", "clip": None}  # fmt: skip
    nested = resolve({"model_type": "made_up", "text_config": text, "tie_word_embeddings": False, "n_embd": 5}, "c")
    assert nested["model_type"] == "made_up"
    assert (nested["hidden_size"], nested["num_hidden_layers"], nested["num_experts"]) == (32, 1, 0)
    assert (nested["shift"], nested["norm"], nested["cap"], nested["steps"]) == (0.0, "after", 3.0, ())
    assert (nested["kept"], nested["tie_word_embeddings"]) == ((False,), False)
    ropes = {"near": {"rope_theta": 10}, "far": {"rope_type": "linear", "factor": 8.0}}
    assert resolve({"model_type": "made_up", "rope_parameters": ropes}, "c")["rope_parameters"] == {
        "near": {"rope_type": "default", "rope_theta": 10.0},
        "far": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 8.0},
    }


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"n_embd": 0}, "n_embd must be a whole number from 1 to"),
        ({"num_experts": -1}, "num_experts must be a whole number from 0 to"),
        ({"shift": "1"}, "shift must be a number"),
        ({"shift": float("nan")}, "shift must be a number"),
        ({"norm": "around"}, "norm is 'around', which is not supported; supported is 'before' or 'after'"),
        ({"norm": ["before"]}, "norm is ['before'], which is not supported"),
        ({"cap": 0}, "cap must be a positive number, not 0"),
        ({"steps": 3}, "steps must be a list, not 3"),
        ({"steps": [1, 0]}, "an entry of steps must be a whole number"),
        ({"kept": [True]}, "kept must be a list of 2 values, one for each layer"),
        ({"kept": [1, 0]}, "an entry of kept must be true or false"),
        ({"clip": 8}, "clip is 8, which is not supported; supported is None"),
        ({"text_config": 3}, "text_config must be an object"),
        (
            {"rope_parameters": {"near": {}}},
            "by type of layer ('near'), which is not supported; those of near, far",
        ),
    ],
)
def test_what_it_may_not(change, sentence):
    with pytest.raises(BadFile) as caught:
        resolve({"model_type": "made_up"} | change, "config.json")
    assert sentence in str(caught.value)


@pytest.mark.parametrize("format", ["f32", "q8_0"])
def test_gguf_files_in_another_layout(format, tmp_path):
    """Experts that are stacked, rows in another order, biases among them, norms with 1 added: as published again."""
    ropes = {kind: {"rope_type": "default", "rope_theta": theta} for kind, theta in (("near", 500.0), ("far", 9e5))}
    config = {"model_type": "made_up", "shift": -0.25, "tie_word_embeddings": False, "rope_parameters": ropes}
    config |= {"num_key_value_heads": 4, "intermediate_size": 96}
    source = GgufSource(write_tiny_gguf(tmp_path / "m.gguf", format, seed=5, **config))
    known = TinySource(format=format, seed=5, vocab_size=266, **config)
    assert source.config == known.config
    assert source.names() == known.names()
    for name in known.names():
        a, b = source.get(name), known.get(name)
        assert (a.format, a.shape) == (b.format, b.shape)
        exact = not name.endswith("ln.weight")  # which went there and back through a rounded sum
        assert np.abs(a.decode() - b.decode()).max() <= (0 if exact else 2**-23)
    tokens = tiny.text(9, vocabulary=266)
    rows = [tiny.logits(ReferenceRunner(tiny.model(s), kv="f32"), tokens) for s in (source, known)]
    np.testing.assert_allclose(*rows, rtol=0, atol=1e-5)


def test_other_names_of_a_checkpoint(tmp_path):
    """Prefixes that come and go, and parts of a larger model that the text does not need."""
    ropes = {kind: {"rope_type": "default", "rope_theta": 10000.0} for kind in ("near", "far")}
    known = TinySource(model_type="made_up", seed=5, rope_parameters=ropes)
    spelled = {n: "lang." + n if n.endswith("up.weight") else n.removeprefix("transformer.") for n in known.names()}
    tensors = {spelled[n]: ("F32", known.get(n).shape, known.get(n).data.tobytes()) for n in known.names()}
    write_safetensors(tmp_path / "model.safetensors", tensors | {"vision.x": ("U8", (1,), b"\0")})
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "made_up"}))
    source = SafetensorsSource(tmp_path)
    assert source.names() == known.names()
    for name in known.names():
        assert (source.get(name).data == known.get(name).data).all()
    twice = {"transformer.wte.weight": tensors["wte.weight"]}
    write_safetensors(tmp_path / "model.safetensors", tensors | twice)
    with pytest.raises(BadFile, match=r"'transformer\.wte\.weight' under two names"):
        SafetensorsSource(tmp_path)


def test_more_weights_than_can_be():
    """A number of experts that would fill the memory with names ends in a sentence."""
    with pytest.raises(ValueError, match="needs more than 262144 weights"):
        families.shapes(resolve({"model_type": "made_up", "num_experts": 2**31 - 1}, "c"))


def test_only_families_that_are_there():
    for file, (model_types, architectures) in families.FILES.items():
        for name in model_types:
            assert families.of_model_type(name).name == name
        assert file in model_types
        assert (families.of_model_type(file).gguf is not None) == bool(architectures)
    with pytest.raises(ValueError, match=r"'no_such'; the supported ones are .*, llama, "):
        families.of_architecture("no_such")
