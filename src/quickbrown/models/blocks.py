"""What families share: the frame of a decoder, and the pieces of a layer. A piece is called with `ops` and its input.

Every piece takes its weights by their published names: `Linear(weights, "lm_head", V, H)` holds `lm_head.weight`,
(V, H).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import numpy as np

from quickbrown.models.config import Config
from quickbrown.models.ops import Ops, W, X
from quickbrown.models.rope import Rope, rope


class Weights(Protocol):
    """The weights of a checkpoint."""

    def take(self, name: str, *shape: int) -> W:
        """The weight of this published name and this shape; the same object each time.

        A family tells by these calls alone which weights it has: files are checked against them.
        """
        ...


class Layer(Protocol):
    """One of a decoder's layers."""

    def forward(self, ops: Ops[X], x: X, batch: Any) -> X:
        """(T, hidden_size) -> (T, hidden_size)."""
        ...


class Decoder:
    """Tokens become vectors, layers change them, and the last of them are compared with the vectors of all tokens.

    layer  makes a layer of (config, weights, its index, the rotation that all layers share, or those of its type)
    norm   of what the last layer gives; unless given, an `RMSNorm`

    Of the class:
    EMBEDDING, HEAD  names of the two weights that may be one
    INTERLEAVED      whether the pairs of a head that turn are adjacent values
    RENAMED          pattern of other names that checkpoints have -> what stands for it in the name here
    UNREAD           patterns of tensors that checkpoints have besides, and the text does not need
    INPUTS_FIRST     patterns of weights that checkpoints publish as (..., in, out), unless they are quantized
    """

    EMBEDDING: ClassVar[str] = "model.embed_tokens.weight"
    HEAD: ClassVar[str] = "lm_head.weight"
    INTERLEAVED: ClassVar[bool] = False
    RENAMED: ClassVar[Mapping[str, str]] = {}
    UNREAD: ClassVar[tuple[str, ...]] = ()
    INPUTS_FIRST: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        config: Any,
        weights: Weights,
        layer: Callable[[Any, Weights, int, Any], Layer],
        norm: RMSNorm | LayerNorm | None = None,
    ) -> None:
        c = config
        self.config: Any = config
        turns = self.turns()
        self.ropes = [turn for turn in dict.fromkeys(turns) if turn is not None]
        self.embedding = weights.take(self.EMBEDDING, c.vocab_size, c.hidden_size)
        self.layers = [layer(c, weights, i, turn) for i, turn in enumerate(turns)]
        self.norm = norm or RMSNorm(weights, "model.norm", c.hidden_size, c.rms_norm_eps)
        tied = c.tie_word_embeddings
        self.head = self.embedding if tied else weights.take(self.HEAD, c.vocab_size, c.hidden_size)

    def turns(self) -> list[Any]:
        """The rotation of each layer, or None."""
        c, longest = self.config, self.config.max_position_embeddings
        if not hasattr(c, "rope_parameters"):
            return [None] * c.num_hidden_layers
        if not c.ROPES:
            return [rope(c.rope_parameters, c.head_dim, longest, interleaved=self.INTERLEAVED)] * c.num_hidden_layers
        of = {kind: rope(c.rope_parameters[kind], c.head_dim, longest) for kind in c.ROPES}
        return [of[kind] for kind in c.layer_types]

    def forward(self, ops: Ops[X], tokens: X, batch: Any) -> X:
        """Tokens (T,) to logits (R, vocab_size)."""
        x = self.embed(ops, tokens)
        for layer in self.layers:
            x = layer.forward(ops, x, batch)
        return self.logits(ops, self.norm(ops, ops.rows(x, batch)))

    def embed(self, ops: Ops[X], tokens: X) -> X:
        """What the first layer is given: (T,) -> (T, hidden_size)."""
        return ops.embed(self.embedding, tokens)

    def logits(self, ops: Ops[X], x: X) -> X:
        """(R, hidden_size) -> (R, vocab_size)."""
        return ops.linear(x, self.head)


class Linear:
    """x W^T, and + b where there is a bias."""

    def __init__(self, weights: Weights, name: str, outputs: int, inputs: int, bias: bool = False) -> None:
        self.weight = weights.take(name + ".weight", outputs, inputs)
        self.bias = weights.take(name + ".bias", outputs) if bias else None

    @classmethod
    def of(cls, weight: W, bias: W | None = None) -> Linear:
        """Of weights in hand."""
        made = cls.__new__(cls)
        made.weight, made.bias = weight, bias
        return made

    def __call__(self, ops: Ops[X], x: X) -> X:
        return ops.linear(x, self.weight, self.bias)


def split(weights: Weights, name: str, outputs: Sequence[int], inputs: int, bias: bool = False) -> Iterator[Linear]:
    """Linears that are published as one weight, below each other: so many rows of it each."""
    weight, start = weights.take(name + ".weight", sum(outputs), inputs), 0
    biases = weights.take(name + ".bias", sum(outputs)) if bias else None
    for count in outputs:
        yield Linear.of(weight.rows(start, start + count), biases and biases.rows(start, start + count))
        start += count


def by_key_head(weights: Weights, name: str, c: Config, bias: bool = False) -> list[Linear]:
    """q, k and v that are published as one weight, key head by key head: of each the queries that read it, the key and
    the value, head_dim rows each."""
    inputs, dim, of_one = c.hidden_size, c.head_dim, c.num_attention_heads // c.num_key_value_heads
    rows = np.arange(c.num_key_value_heads * (of_one + 2) * dim).reshape(c.num_key_value_heads, -1, dim)
    weight = weights.take(name + ".weight", rows.size, inputs)
    biases = weights.take(name + ".bias", rows.size) if bias else None
    kinds = [rows[:, :of_one].reshape(-1), rows[:, of_one].reshape(-1), rows[:, of_one + 1].reshape(-1)]
    return [Linear.of(weight.picked(kind), biases and biases.picked(kind)) for kind in kinds]


def projections(weights: Weights, name: str, c: Config, biased: str = "") -> list[Linear]:
    """q, k, v and o of an attention; `biased` names those that have a bias."""
    hidden, q, kv = c.hidden_size, c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
    sizes = {"q": (q, hidden), "k": (kv, hidden), "v": (kv, hidden), "o": (hidden, q)}
    return [Linear(weights, f"{name}.{part}_proj", *sizes[part], part in biased) for part in "qkvo"]


class RMSNorm:
    """Rows, or each of the `heads` parts of a row, to a root mean square of 1, then times w + offset."""

    def __init__(
        self, weights: Weights, name: str, width: int, eps: float, heads: int = 1, offset: float = 0.0
    ) -> None:
        self.weight, self.eps, self.heads = weights.take(name + ".weight", width), eps, heads
        self.offset = offset

    def __call__(self, ops: Ops[X], x: X) -> X:
        return ops.rms_norm(x, self.weight, self.eps, self.heads, self.offset)


class LayerNorm:
    """Rows, or each of the `heads` parts of a row, to a mean of 0 and a variance of 1, then times w, and + b where
    there is a bias."""

    def __init__(self, weights: Weights, name: str, width: int, eps: float, bias: bool = True, heads: int = 1) -> None:
        self.weight, self.eps, self.heads = weights.take(name + ".weight", width), eps, heads
        self.bias = weights.take(name + ".bias", width) if bias else None

    def __call__(self, ops: Ops[X], x: X) -> X:
        return ops.layer_norm(x, self.weight, self.bias, self.eps, self.heads)


class Attention:
    """Grouped-query attention of layer `index`, over a window if that is not 0, with rotary positions if any.

    scale    of scores; unless given, head_dim ** -0.5
    softcap  of scores; 0 for none
    slopes   of distances, of each head, as `Ops.attention` has them
    """

    def __init__(
        self,
        config: Config,
        index: int,
        rope: Rope | None,
        window: int = 0,
        *,
        scale: float | None = None,
        softcap: float = 0.0,
        slopes: Sequence[float] | None = None,
    ) -> None:
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.scale = config.head_dim**-0.5 if scale is None else scale
        self.index = config.attention_layers.index(index)  # among those that keep keys and values
        self.rope, self.window, self.softcap = rope, window, softcap
        self.slopes = slopes

    def __call__(self, ops: Ops[X], q: X, k: X, v: X, batch: Any) -> X:
        if self.rope is not None:
            q = ops.rope(q, batch, self.heads, self.rope)
            k = ops.rope(k, batch, self.kv_heads, self.rope)
        scores = self.scale, self.window, self.softcap
        return ops.attention(self.index, q, k, v, batch, self.heads, self.kv_heads, *scores, slopes=self.slopes)


class SwiGLU:
    """down(gate(x) * sigmoid(gate(x)) * up(x))."""

    KIND: ClassVar[str] = "silu"

    def __init__(self, weights: Weights, name: str, hidden: int, inner: int, bias: bool = False) -> None:
        self.gate = Linear(weights, f"{name}.gate_proj", inner, hidden, bias)
        self.up = Linear(weights, f"{name}.up_proj", inner, hidden, bias)
        self.down = Linear(weights, f"{name}.down_proj", hidden, inner, bias)

    def __call__(self, ops: Ops[X], x: X) -> X:
        return self.down(ops, ops.gated(self.gate(ops, x), self.up(ops, x), self.KIND))


class FusedSwiGLU(SwiGLU):
    """The same; gate and up are published as one weight."""

    def __init__(self, weights: Weights, name: str, hidden: int, inner: int) -> None:
        self.gate, self.up = split(weights, f"{name}.gate_up_proj", (inner, inner), hidden)
        self.down = Linear(weights, f"{name}.down_proj", hidden, inner)


class GeGLU(SwiGLU):
    """The same with GELU, approximated by tanh, in the place of x * sigmoid(x)."""

    KIND = "gelu_tanh"


class MLP:
    """down(activation(up(x))), of a kind that `models.ops` knows."""

    def __init__(self, up: Linear, down: Linear, kind: str) -> None:
        self.up, self.down, self.kind = up, down, kind

    def __call__(self, ops: Ops[X], x: X) -> X:
        return self.down(ops, ops.activate(self.up(ops, x), self.kind))
