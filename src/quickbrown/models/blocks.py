"""What families share: the frame of a decoder, and the pieces of a layer. A piece is called with `ops` and its input.

Every piece takes its weights by their published names: `Linear(weights, "lm_head", V, H)` holds `lm_head.weight`,
(V, H).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol

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

    layer  makes a layer of (config, weights, its index, the rotation that all layers share)

    Of the class:
    EMBEDDING, HEAD  names of the two weights that may be one
    RENAMED          pattern of other names that checkpoints have -> what stands for it in the name here
    UNREAD           patterns of tensors that checkpoints have besides, and the text does not need
    """

    EMBEDDING: ClassVar[str] = "model.embed_tokens.weight"
    HEAD: ClassVar[str] = "lm_head.weight"
    RENAMED: ClassVar[Mapping[str, str]] = {}
    UNREAD: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: Any, weights: Weights, layer: Callable[[Any, Weights, int, Rope], Layer]) -> None:
        c = config
        turn = rope(c.rope_parameters, c.head_dim, c.max_position_embeddings)
        self.config: Any = config
        self.ropes = [turn]
        self.embedding = weights.take(self.EMBEDDING, c.vocab_size, c.hidden_size)
        self.layers = [layer(c, weights, i, turn) for i in range(c.num_hidden_layers)]
        self.norm = RMSNorm(weights, "model.norm", c.hidden_size, c.rms_norm_eps)
        tied = c.tie_word_embeddings
        self.head = self.embedding if tied else weights.take(self.HEAD, c.vocab_size, c.hidden_size)

    def forward(self, ops: Ops[X], tokens: X, batch: Any) -> X:
        """Tokens (T,) to logits (R, vocab_size)."""
        x = ops.embed(self.embedding, tokens)
        for layer in self.layers:
            x = layer.forward(ops, x, batch)
        return ops.linear(self.norm(ops, ops.rows(x, batch)), self.head)


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


def split(weights: Weights, name: str, outputs: Sequence[int], inputs: int) -> Iterator[Linear]:
    """Linears that are published as one weight, below each other: so many rows of it each."""
    weight, start = weights.take(name + ".weight", sum(outputs), inputs), 0
    for count in outputs:
        yield Linear.of(weight.rows(start, start + count))
        start += count


def projections(weights: Weights, name: str, c: Config, biased: str = "") -> list[Linear]:
    """q, k, v and o of an attention; `biased` names those that have a bias."""
    hidden, q, kv = c.hidden_size, c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
    sizes = {"q": (q, hidden), "k": (kv, hidden), "v": (kv, hidden), "o": (hidden, q)}
    return [Linear(weights, f"{name}.{part}_proj", *sizes[part], part in biased) for part in "qkvo"]


class RMSNorm:
    """Rows, or each of the `heads` parts of a row, to a root mean square of 1, then times w."""

    def __init__(self, weights: Weights, name: str, width: int, eps: float, heads: int = 1) -> None:
        self.weight, self.eps, self.heads = weights.take(name + ".weight", width), eps, heads

    def __call__(self, ops: Ops[X], x: X) -> X:
        return ops.rms_norm(x, self.weight, self.eps, self.heads)


class Attention:
    """Grouped-query attention of layer `index`, over a window if that is not 0, with rotary positions if any."""

    def __init__(self, config: Config, index: int, rope: Rope | None, window: int = 0) -> None:
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.scale = config.head_dim**-0.5
        self.index, self.rope, self.window = index, rope, window

    def __call__(self, ops: Ops[X], q: X, k: X, v: X, batch: Any) -> X:
        if self.rope is not None:
            q = ops.rope(q, batch, self.heads, self.rope)
            k = ops.rope(k, batch, self.kv_heads, self.rope)
        return ops.attention(self.index, q, k, v, batch, self.heads, self.kv_heads, self.scale, self.window)


class SwiGLU:
    """down(gate(x) * sigmoid(gate(x)) * up(x))."""

    def __init__(self, weights: Weights, name: str, hidden: int, inner: int, bias: bool = False) -> None:
        self.gate = Linear(weights, f"{name}.gate_proj", inner, hidden, bias)
        self.up = Linear(weights, f"{name}.up_proj", inner, hidden, bias)
        self.down = Linear(weights, f"{name}.down_proj", hidden, inner, bias)

    def __call__(self, ops: Ops[X], x: X) -> X:
        return self.down(ops, ops.gated(self.gate(ops, x), self.up(ops, x), "silu"))
