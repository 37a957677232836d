"""Qwen3-Next: gated delta networks in three layers of four, attention through a gate in the fourth; mixtures of experts
(Qwen Team 2025; Yang et al. 2024)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from quickbrown.models.blocks import Attention, Decoder, Linear, RMSNorm, SwiGLU, Weights
from quickbrown.models.config import MOST_LAYERS, SILU, Count, PerLayer, RopeConfig, derived
from quickbrown.models.experts import check_experts
from quickbrown.models.ops import Ops, X
from quickbrown.models.qwen2_moe import Shared
from quickbrown.models.rope import Rope

LinearType = Literal["linear_attention", "full_attention"]
LEAST = 1e-6  # added to the squared length of queries and keys


def every(step: int, layers: int) -> tuple[LinearType, ...]:
    """Types of layers of which every `step`-th has attention."""
    return tuple("linear_attention" if (i + 1) % step else "full_attention" for i in range(layers))


@dataclass(frozen=True, kw_only=True)
class DeltaConfig(RopeConfig):
    """Of families with gated delta networks; attention_bias: whether q, k, v and o of attention have biases.

    layer_types  of each layer, "linear_attention" for such a network; all but every fourth, unless listed
    linear_...   of these networks: heads of keys (and queries) and of values and how many numbers each has, and how
                 many values the convolution before them sees, the own included
    """

    IDLE = SILU
    PART = 0.25

    rms_norm_eps: float = 1e-6
    max_position_embeddings: int = 32768
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    head_dim: int = 256
    linear_conv_kernel_dim: int = 4
    linear_key_head_dim: int = 128
    linear_value_head_dim: int = 128
    linear_num_key_heads: int = 16
    linear_num_value_heads: int = 32
    layer_types: PerLayer[LinearType] = derived(lambda c: every(4, c.num_hidden_layers))

    @classmethod
    def published(cls, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        """full_attention_interval is a shorter spelling of layer_types."""
        usual = {field.name: field.default for field in dataclasses.fields(cls)}["num_hidden_layers"]
        step, layers = raw.get("full_attention_interval"), raw.get("num_hidden_layers", usual)
        if step is None or raw.get("layer_types") is not None or type(layers) is not int or layers > MOST_LAYERS:
            return raw
        if type(step) is not int or step < 1:
            raise ValueError(f"full_attention_interval must be a whole number from 1 on, not {step!r}")
        return {**raw, "layer_types": list(every(step, layers))}

    @property
    def attention_layers(self) -> tuple[int, ...]:
        return tuple(i for i, kind in enumerate(self.layer_types) if kind == "full_attention")

    @property
    def keys(self) -> int:
        """Of all heads of a delta network."""
        return self.linear_num_key_heads * self.linear_key_head_dim

    @property
    def values(self) -> int:
        return self.linear_num_value_heads * self.linear_value_head_dim

    @property
    def state_sizes(self) -> tuple[int, ...]:
        seen = (self.linear_conv_kernel_dim - 1) * (2 * self.keys + self.values)
        return (seen, self.linear_key_head_dim * self.values) * self.layer_types.count("linear_attention")

    def check(self) -> None:
        super().check()
        if self.linear_num_value_heads % self.linear_num_key_heads:
            raise ValueError(
                f"its {self.linear_num_value_heads} linear value heads do not divide into {self.linear_num_key_heads} "
                "key heads"
            )
        if self.linear_value_head_dim % 16:
            raise ValueError(
                f"its linear value heads have {self.linear_value_head_dim} values; a multiple of 16 is supported"
            )
        if self.linear_conv_kernel_dim < 2:
            raise ValueError("its convolutions see one value only; linear_conv_kernel_dim must be 2 or more")


@dataclass(frozen=True, kw_only=True)
class Config(DeltaConfig):
    """decoder_sparse_step, mlp_only_layers: every so many layers, less those listed, one has a mixture of experts; the
    others have one network of intermediate_size
    """

    vocab_size: int = 151936
    hidden_size: int = 2048
    intermediate_size: int = 5632
    num_hidden_layers: int = 48
    num_attention_heads: int = 16
    num_key_value_heads: int = 2
    decoder_sparse_step: int = 1
    mlp_only_layers: tuple[Count, ...] = derived(lambda c: ())
    num_experts: int = 512
    num_experts_per_tok: int = 10
    norm_topk_prob: bool = True
    moe_intermediate_size: int = 512
    shared_expert_intermediate_size: int = 512

    def check(self) -> None:
        super().check()
        check_experts(self.num_experts, self.num_experts_per_tok)

    def mixed(self, layer: int) -> bool:
        """Whether this layer has a mixture."""
        return layer not in self.mlp_only_layers and (layer + 1) % self.decoder_sparse_step == 0


class Model(Decoder):
    """The weights of a Qwen3-Next by their published names, and its forward pass over the verbs of `models.ops`."""

    UNREAD = (r"mtp\..*",)

    config: Config

    def __init__(self, config: Config, weights: Weights) -> None:
        norm = RMSNorm(weights, "model.norm", config.hidden_size, config.rms_norm_eps, 1, 1.0)
        super().__init__(config, weights, Layer, norm)


def by_key_head(config: DeltaConfig, weights: Weights, name: str) -> tuple[Linear, Linear, Linear, Linear]:
    """[q | k | v], z, b and a of a delta network, published as two weights, key head by key head."""
    c, hidden = config, config.hidden_size
    key_heads, key, value = c.linear_num_key_heads, c.linear_key_head_dim, c.values // c.linear_num_key_heads
    of_one = c.linear_num_value_heads // key_heads
    rows = np.arange(2 * (c.keys + c.values)).reshape(key_heads, -1)
    q, k, v, z = (part.reshape(-1) for part in np.split(rows, np.cumsum([key, key, value]), axis=1))
    b, a = (
        part.reshape(-1) for part in np.split(np.arange(2 * c.linear_num_value_heads).reshape(-1, 2 * of_one), 2, 1)
    )
    wide = weights.take(name + ".in_proj_qkvz.weight", rows.size, hidden)
    narrow = weights.take(name + ".in_proj_ba.weight", 2 * c.linear_num_value_heads, hidden)
    qkv = Linear.of(wide.picked(np.concatenate([q, k, v])))
    return qkv, Linear.of(wide.picked(z)), Linear.of(narrow.picked(b)), Linear.of(narrow.picked(a))


class DeltaNet:
    """q, k and v are what a convolution makes of them, q and k of length 1; how much of the state a head forgets, and
    how much it corrects, depends on the token; the result is normalised, head by head, and goes through a gate.

    linears  [q | k | v], z (the gate), b (what is corrected) and a (how fast is forgotten)
    """

    def __init__(
        self,
        config: DeltaConfig,
        weights: Weights,
        name: str,
        index: int,
        linears: tuple[Linear, Linear, Linear, Linear],
    ) -> None:
        c = self.config = config
        self.index = index
        self.qkv, self.gate, self.beta, rate = linears
        self.rate = Linear.of(rate.weight, weights.take(name + ".dt_bias", c.linear_num_value_heads))
        self.log_rate = weights.take(name + ".A_log", c.linear_num_value_heads)
        self.filter = weights.take(name + ".conv1d.weight", 2 * c.keys + c.values, 1, c.linear_conv_kernel_dim)
        heads, value = c.linear_num_value_heads, c.linear_value_head_dim
        self.norm = RMSNorm(weights, name + ".norm", value, c.rms_norm_eps, heads)
        self.out = Linear(weights, name + ".out_proj", c.hidden_size, c.values)

    def __call__(self, ops: Ops[X], x: X, batch: Any) -> X:
        c = self.config
        h = ops.activate(ops.short_conv(self.index, self.qkv(ops, x), self.filter, None, batch), "silu")
        # x / sqrt(sum(x**2) + e) is an RMS norm, e over D, divided by sqrt(D); queries are divided by that once more
        dim, heads = c.linear_key_head_dim, c.linear_num_key_heads
        q = ops.scale(ops.rms_norm(ops.part(h, 1, 0, c.keys), None, LEAST / dim, heads), 1 / dim)
        k = ops.scale(ops.rms_norm(ops.part(h, 1, c.keys, 2 * c.keys), None, LEAST / dim, heads), dim**-0.5)
        v = ops.part(h, 1, 2 * c.keys, 2 * c.keys + c.values)
        beta = ops.activate(self.beta(ops, x), "sigmoid")
        decay = ops.decay(ops.softplus(self.rate(ops, x)), self.log_rate)
        sizes = c.linear_num_value_heads, heads
        h = ops.recurrence(self.index, q, k, v, beta, decay, batch, *sizes, delta=True)
        return self.out(ops, ops.gated(self.gate(ops, x), self.norm(ops, h), "silu"))


class GatedAttention:
    """sigmoid(gate) * attention, the gate head by head beside the queries; q and k are normalised head by head."""

    def __init__(self, config: DeltaConfig, weights: Weights, name: str, index: int, turn: Rope) -> None:
        c, hidden, dim, bias = config, config.hidden_size, config.head_dim, config.attention_bias
        heads, kv_heads = c.num_attention_heads, c.num_key_value_heads
        both = Linear(weights, name + ".q_proj", 2 * heads * dim, hidden, bias)
        queries, gates = np.arange(2 * heads * dim).reshape(heads, 2, dim).swapaxes(0, 1).reshape(2, -1)
        self.q, self.gate = (
            Linear.of(both.weight.picked(rows), both.bias and both.bias.picked(rows)) for rows in (queries, gates)
        )
        self.k = Linear(weights, name + ".k_proj", kv_heads * dim, hidden, bias)
        self.v = Linear(weights, name + ".v_proj", kv_heads * dim, hidden, bias)
        self.o = Linear(weights, name + ".o_proj", hidden, heads * dim, bias)
        self.q_norm = RMSNorm(weights, name + ".q_norm", dim, c.rms_norm_eps, heads, 1.0)
        self.k_norm = RMSNorm(weights, name + ".k_norm", dim, c.rms_norm_eps, kv_heads, 1.0)
        self.attention = Attention(c, index, turn)

    def __call__(self, ops: Ops[X], x: X, batch: Any) -> X:
        q, k = self.q_norm(ops, self.q(ops, x)), self.k_norm(ops, self.k(ops, x))
        h = self.attention(ops, q, k, self.v(ops, x), batch)
        return self.o(ops, ops.gated(self.gate(ops, x), h, "sigmoid"))


class DeltaLayer:
    """x + mixer(norm(x)), then x + network(norm(x)); a mixer is a delta network or attention."""

    linears = staticmethod(by_key_head)

    def __init__(self, config: Any, weights: Weights, index: int, turn: Rope) -> None:
        c, at = config, f"model.layers.{index}."
        self.mixer_norm = RMSNorm(weights, at + "input_layernorm", c.hidden_size, c.rms_norm_eps, 1, 1.0)
        self.mixer: DeltaNet | GatedAttention
        if c.layer_types[index] == "linear_attention":
            name = at + "linear_attn"
            self.mixer = DeltaNet(c, weights, name, index, self.linears(c, weights, name))
        else:
            self.mixer = GatedAttention(c, weights, at + "self_attn", index, turn)
        self.network_norm = RMSNorm(weights, at + "post_attention_layernorm", c.hidden_size, c.rms_norm_eps, 1, 1.0)
        self.network: Shared | SwiGLU = self._network(c, weights, at + "mlp", index)

    def _network(self, config: Any, weights: Weights, name: str, index: int) -> Shared | SwiGLU:
        return SwiGLU(weights, name, config.hidden_size, config.intermediate_size)

    def forward(self, ops: Ops[X], x: X, batch: Any) -> X:
        x = ops.add(x, self.mixer(ops, self.mixer_norm(ops, x), batch))
        return ops.add(x, self.network(ops, self.network_norm(ops, x)))


class Layer(DeltaLayer):
    """The same, with a mixture of experts where there is one."""

    def _network(self, config: Config, weights: Weights, name: str, index: int) -> Shared | SwiGLU:
        return Shared(config, weights, name) if config.mixed(index) else super()._network(config, weights, name, index)
