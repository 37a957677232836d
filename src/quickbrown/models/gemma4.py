"""Gemma 4, its text: layers that see everything have heads of their own size, of which a part turns; the last layers
read keys and values of earlier ones; every layer may be given a vector of its own of each token (Gemma Team 2026)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quickbrown.models.blocks import Decoder, GeGLU, Linear, RMSNorm, Weights
from quickbrown.models.config import MOST_HEAD, Count, LayeredConfig, LayerType, PerLayer, derived, every
from quickbrown.models.experts import Mixture, Networks, check_experts
from quickbrown.models.ops import KvLayer, Ops, Router, W, X
from quickbrown.models.rope import Rope, rope

TURNS = {  # where config.json has no rope_parameters
    "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1000000.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
}


def last_full(types: tuple[LayerType, ...]) -> tuple[LayerType, ...]:
    """The last layer sees everything, whatever config.json says."""
    return (*types[:-1], "full_attention")


@dataclass(frozen=True, kw_only=True)
class Config(LayeredConfig):
    """attention_bias: whether q, k, v and o have biases. head_dim, num_key_value_heads: of layers that see a window.

    global_head_dim, num_global_key_value_heads  of the others, the second only with attention_k_eq_v
    attention_k_eq_v            whether values of the others are their keys, normalised without turning
    num_kv_shared_layers        so many last layers read what the last one before them of their type has stored
    use_double_wide_mlp         whether their networks are twice as wide
    hidden_size_per_layer_input what every layer is given of a token beside x; 0 for nothing
    enable_moe_block            whether layers have experts beside their network
    final_logit_softcapping     what logits cannot exceed; None for no limit
    """

    IDLE = {  # noqa: RUF012
        "hidden_activation": ("gelu_pytorch_tanh", "gelu_new"),
        "use_bidirectional_attention": (None, "vision"),
    }
    TEXT = "text_config"
    ROPES = ("full_attention", "sliding_attention")

    vocab_size: int = 262144
    hidden_size: int = 2304
    intermediate_size: int = 9216
    num_hidden_layers: int = 30
    num_attention_heads: int = 8
    num_key_value_heads: int = 4
    num_global_key_value_heads: int | None = None
    head_dim: int = 256
    global_head_dim: int = 512
    max_position_embeddings: int = 131072
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = True
    attention_bias: bool = False
    attention_k_eq_v: bool = False
    sliding_window: int | None = 512
    layer_types: PerLayer[LayerType] = derived(lambda c: last_full(every(6, c.num_hidden_layers)))
    num_kv_shared_layers: Count = 0
    use_double_wide_mlp: bool = False
    hidden_size_per_layer_input: Count = 256
    vocab_size_per_layer_input: int = 262144
    enable_moe_block: bool = False
    num_experts: int | None = None
    top_k_experts: int | None = None
    moe_intermediate_size: int | None = None
    final_logit_softcapping: float | None = None

    @classmethod
    def published(cls, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        """per_layer_config is another spelling of what is different where everything is seen."""
        raw = {**raw, "rope_parameters": raw.get("rope_parameters") or TURNS}
        own = raw.pop("per_layer_config", None)
        if not own:
            return raw
        types = raw.get("layer_types")
        others = [str(i) for i, kind in enumerate(types) if kind == "full_attention"] if isinstance(types, list) else []
        if not isinstance(own, dict) or sorted(own) != sorted(others) or any(own[i] != own[others[0]] for i in own):
            raise ValueError("per_layer_config must say the same of each layer of full_attention, and of no other")
        given = own[others[0]]
        spelled = {"head_dim": "global_head_dim", "num_key_value_heads": "num_global_key_value_heads"}
        if not isinstance(given, dict) or not given.keys() <= spelled.keys():
            raise ValueError(f"per_layer_config may say {' and '.join(spelled)}, not {given!r}")
        return raw | {spelled[name]: value for name, value in given.items()}

    def settle(self) -> None:
        super().settle()
        if self.layer_types:
            self.set("layer_types", last_full(self.layer_types))

    def check(self) -> None:
        super().check()
        if self.global_head_dim % 2 or self.global_head_dim > MOST_HEAD:
            raise ValueError(f"global_head_dim must be an even number up to {MOST_HEAD}, not {self.global_head_dim}")
        if self.num_attention_heads % self.kv_heads(self.num_hidden_layers - 1):
            raise ValueError("num_attention_heads must be a multiple of num_global_key_value_heads")
        storing = self.layer_types[: self.storing]
        if self.storing < 1 or set(storing) != set(self.layer_types):
            raise ValueError(
                f"num_kv_shared_layers is {self.num_kv_shared_layers} of {self.num_hidden_layers}, which leaves a type "
                "of layer without one that stores keys"
            )
        if self.enable_moe_block:
            if not self.num_experts or not self.top_k_experts or not self.moe_intermediate_size:
                raise ValueError("enable_moe_block needs num_experts, top_k_experts and moe_intermediate_size")
            check_experts(self.num_experts, self.top_k_experts)

    @property
    def storing(self) -> int:
        """So many layers store keys and values; those behind them read theirs."""
        return self.num_hidden_layers - self.num_kv_shared_layers

    def sees_all(self, layer: int) -> bool:
        return self.layer_types[layer] == "full_attention"

    def kv_heads(self, layer: int) -> int:
        own = self.num_global_key_value_heads if self.attention_k_eq_v and self.sees_all(layer) else None
        return own or self.num_key_value_heads

    def size(self, layer: int) -> int:
        """Of a head."""
        return self.global_head_dim if self.sees_all(layer) else self.head_dim

    def source(self, layer: int) -> int:
        """The layer whose keys and values this one reads."""
        before = range(min(layer, self.storing - 1), -1, -1)
        return next(i for i in before if self.layer_types[i] == self.layer_types[layer])

    @property
    def kv_layers(self) -> tuple[KvLayer, ...]:
        return tuple(KvLayer(self.kv_heads(i), self.size(i), self.size(i)) for i in range(self.storing))


class Model(Decoder):
    """The weights of a Gemma 4 by their published names, and its forward pass over the verbs of `models.ops`."""

    RENAMED = {r"^model\.language_model\.": "model.", r"^language_model\.": ""}  # noqa: RUF012
    UNREAD = (r"(model\.)?(vision_tower|audio_tower|embed_vision|embed_audio)\..*",)

    config: Config

    def __init__(self, config: Config, weights: Weights) -> None:
        super().__init__(config, weights, Layer)
        self.inputs = LayerInputs(config, weights) if config.hidden_size_per_layer_input else None

    def turns(self) -> list[Any]:
        c, parameters = self.config, self.config.rope_parameters
        sizes = {"full_attention": c.global_head_dim, "sliding_attention": c.head_dim}
        of = {kind: rope(parameters[kind], sizes[kind], c.max_position_embeddings) for kind in c.ROPES}
        return [of[kind] for kind in c.layer_types]

    def forward(self, ops: Ops[X], tokens: X, batch: Any) -> X:
        x = ops.scale(ops.embed(self.embedding, tokens), self.config.hidden_size**0.5)
        given = None if self.inputs is None else self.inputs(ops, tokens, x)
        for layer in self.layers:
            assert isinstance(layer, Layer)
            x = layer.forward(ops, x, batch, given)
        logits = ops.linear(self.norm(ops, ops.rows(x, batch)), self.head)
        cap = self.config.final_logit_softcapping
        return logits if cap is None else ops.softcap(logits, cap)


class LayerInputs:
    """What all layers are given of a token: (its row of a table + norm(projection(x))) / sqrt(2), one after the
    other."""

    def __init__(self, config: Config, weights: Weights) -> None:
        c, self.size = config, config.hidden_size_per_layer_input
        width = c.num_hidden_layers * self.size
        self.table = weights.take("model.embed_tokens_per_layer.weight", c.vocab_size_per_layer_input, width)
        self.projection = Linear(weights, "model.per_layer_model_projection", width, c.hidden_size)
        self.scale = c.hidden_size**-0.5
        name = "model.per_layer_projection_norm"
        self.norm = RMSNorm(weights, name, self.size, c.rms_norm_eps, c.num_hidden_layers)

    def __call__(self, ops: Ops[X], tokens: X, x: X) -> X:
        projected = self.norm(ops, ops.scale(self.projection(ops, x), self.scale))
        own = ops.scale(ops.embed(self.table, tokens), self.size**0.5)
        return ops.scale(ops.add(projected, own), 2**-0.5)


class Attention:
    """Of normalised queries, keys and values, with scores as they are; or of what another layer has stored."""

    def __init__(self, config: Config, weights: Weights, name: str, index: int, turn: Rope) -> None:
        c, hidden, bias = config, config.hidden_size, config.attention_bias
        dim = c.size(index)
        self.heads, self.kv_heads, self.eps = c.num_attention_heads, c.kv_heads(index), c.rms_norm_eps
        self.source, self.window, self.turn = c.source(index), c.window(index), turn
        self.q = Linear(weights, name + "q_proj", self.heads * dim, hidden, bias)
        self.q_norm = RMSNorm(weights, name + "q_norm", dim, self.eps, self.heads)
        self.k: Linear | None = None
        self.v: Linear | None = None
        if index < c.storing:
            self.k = Linear(weights, name + "k_proj", self.kv_heads * dim, hidden, bias)
            self.k_norm = RMSNorm(weights, name + "k_norm", dim, self.eps, self.kv_heads)
            if not (c.attention_k_eq_v and c.sees_all(index)):
                self.v = Linear(weights, name + "v_proj", self.kv_heads * dim, hidden, bias)
        self.o = Linear(weights, name + "o_proj", hidden, self.heads * dim, bias)

    def __call__(self, ops: Ops[X], x: X, batch: Any) -> X:
        q = ops.rope(self.q_norm(ops, self.q(ops, x)), batch, self.heads, self.turn)
        k = v = None
        if self.k is not None:
            k = self.k(ops, x)
            v = ops.rms_norm(k if self.v is None else self.v(ops, x), None, self.eps, self.kv_heads)
            k = ops.rope(self.k_norm(ops, k), batch, self.kv_heads, self.turn)
        return self.o(ops, ops.attention(self.source, q, k, v, batch, self.heads, self.kv_heads, 1.0, self.window))


class Experts:
    """A mixture whose gate has a norm of its own, and whose experts have a factor each."""

    def __init__(self, config: Config, weights: Weights, at: str) -> None:
        c, hidden = config, config.hidden_size
        assert c.num_experts
        assert c.top_k_experts
        self.norm: W = weights.take(at + "router.scale", hidden)
        self.eps, self.scale = c.rms_norm_eps, hidden**-0.5
        gate = Linear(weights, at + "router.proj", c.num_experts, hidden)
        scales = weights.take(at + "router.per_expert_scale", c.num_experts)
        router = Router(top_k=c.top_k_experts, renormalise=True)
        self.mixture = Mixture(gate, self._networks(c, weights, at + "experts."), router, scales=scales)

    @staticmethod
    def _networks(c: Config, weights: Weights, name: str) -> Networks:
        """Gates lie above ups in one stack of all experts, downs in another."""
        assert c.num_experts
        assert c.moe_intermediate_size
        every_one, inner, hidden = range(c.num_experts), c.moe_intermediate_size, c.hidden_size
        both = weights.take(name + "gate_up_proj", c.num_experts, 2 * inner, hidden)
        down = weights.take(name + "down_proj", c.num_experts, hidden, inner)
        return Networks(
            [both.part(e).rows(0, inner) for e in every_one],
            [both.part(e).rows(inner, 2 * inner) for e in every_one],
            [down.part(e) for e in every_one],
            kind="gelu_tanh",
        )

    def __call__(self, ops: Ops[X], x: X, normed: X) -> X:
        """x decides which experts take `normed`."""
        return self.mixture(ops, normed, ops.scale(ops.rms_norm(x, self.norm, self.eps), self.scale))


class Layer:
    """x + norm(attention(norm(x))), then x + norm(mlp(norm(x))), where experts may add to the network, then
    x + norm(projection(gelu(gate(x)) * what the layer is given)), all times a number."""

    def __init__(self, config: Config, weights: Weights, index: int, turn: Rope) -> None:
        c, at, hidden = config, f"model.layers.{index}.", config.hidden_size

        def norm(name: str) -> RMSNorm:
            return RMSNorm(weights, at + name, hidden, c.rms_norm_eps)

        self.attention_norm, self.attention_after = norm("input_layernorm"), norm("post_attention_layernorm")
        self.attention = Attention(c, weights, at + "self_attn.", index, turn)
        self.mlp_norm, self.mlp_after = norm("pre_feedforward_layernorm"), norm("post_feedforward_layernorm")
        wide = 2 if c.use_double_wide_mlp and index >= c.storing else 1
        self.mlp = GeGLU(weights, at + "mlp", hidden, wide * c.intermediate_size)
        self.experts = None
        if c.enable_moe_block:
            self.experts = Experts(c, weights, at)
            self.network_after = norm("post_feedforward_layernorm_1")
            self.experts_norm, self.experts_after = (
                norm("pre_feedforward_layernorm_2"),
                norm("post_feedforward_layernorm_2"),
            )
        size = c.hidden_size_per_layer_input
        if size:
            self.begin, self.end = index * size, (index + 1) * size
            self.gate = Linear(weights, at + "per_layer_input_gate", size, hidden)
            self.projection = Linear(weights, at + "per_layer_projection", hidden, size)
            self.input_after = norm("post_per_layer_input_norm")
        self.factor: W = weights.take(at + "layer_scalar", 1)

    def forward(self, ops: Ops[X], x: X, batch: Any, given: X | None = None) -> X:
        h = self.attention(ops, self.attention_norm(ops, x), batch)
        x = ops.add(x, self.attention_after(ops, h))
        h = self.mlp(ops, self.mlp_norm(ops, x))
        if self.experts is not None:
            mixed = self.experts(ops, x, self.experts_norm(ops, x))
            h = ops.add(self.network_after(ops, h), self.experts_after(ops, mixed))
        x = ops.add(x, self.mlp_after(ops, h))
        if given is not None:
            own = ops.gated(self.gate(ops, x), ops.part(given, 1, self.begin, self.end), "gelu_tanh")
            x = ops.add(x, self.input_after(ops, self.projection(ops, own)))
        return ops.scale(x, self.factor)
