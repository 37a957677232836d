"""What a family says of config.json: the fields that its mathematics reads, what they may hold, and their defaults.

A family's `Config` is a frozen dataclass whose fields have the names that config.json has. What one may hold follows
from its type, and `weights/config.py` reads by that:

    int           a size: a whole number from 1 on      Count     a whole number from 0 on
    float         a number above 0                      Number    any number
    bool          true or false                         Literal   one of these texts
    tuple[X, ...] a list                                PerLayer  a list with a value for each layer
    X | None      that, or null

A field without a default must be there. `derived` is for one that follows from others where it is missing or null.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_type_hints

from quickbrown.models.ops import KvLayer

T = TypeVar("T")
Count = Annotated[int, "from 0 on"]
Number = Annotated[float, "any"]
PER_LAYER = "of each layer"
PerLayer = Annotated[tuple[T, ...], PER_LAYER]
LayerType = Literal["full_attention", "sliding_attention"]

SILU = {"hidden_act": ("silu", "swish")}  # for IDLE, where this is the only activation

MOST_LAYERS = 1 << 16  # so that no config makes lists that fill the memory
MOST_HEAD = 1 << 16  # values of a head


def derived(rule: Callable[[Any], Any], default: Any = None) -> Any:
    """A field that is `rule(config)` where it is None, which it also is where it is missing unless it has a default.

    Rules run in the order in which fields are declared, where a family declares one anew there, when all are set that
    are not None.
    """
    return dataclasses.field(default=default, metadata={"derived": rule})


def all_heads(c: Config) -> int:
    return c.num_attention_heads


def equal_heads(c: Config) -> int:
    if c.hidden_size % c.num_attention_heads:
        raise ValueError(
            f"its hidden size {c.hidden_size} does not divide into {c.num_attention_heads} attention heads"
        )
    return c.hidden_size // c.num_attention_heads


@dataclass(frozen=True, kw_only=True)
class Config:
    """The fields that every family has. Raises ValueError, a sentence about the model, for values that cannot be.

    Of the class:
    ALIASES  field -> its name in config.json, where this family publishes another
    IDLE     fields that would change the mathematics and are not honoured -> the values that change nothing
    TEXT     the field that holds the config of the text model, where the file describes more than that
    THETA    rope_theta, where config.json says none
    ROPES    names of the rotations, where rope_parameters has several: by type of layer
    """

    ALIASES: ClassVar[Mapping[str, str]] = {}
    IDLE: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    TEXT: ClassVar[str | None] = None
    THETA: ClassVar[float] = 10000.0
    ROPES: ClassVar[tuple[str, ...]] = ()

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int = derived(all_heads)
    head_dim: int = derived(equal_heads)
    max_position_embeddings: int
    tie_word_embeddings: bool

    @property
    def value_dim(self) -> int:
        """Of a head's values, where q and k have head_dim."""
        return self.head_dim

    @property
    def attention_layers(self) -> tuple[int, ...]:
        """The layers that have attention, of all tokens or of a window, and keep keys and values of their own."""
        return tuple(range(self.num_hidden_layers))

    @property
    def kv_layers(self) -> tuple[KvLayer, ...]:
        """The keys and values that are stored of a token, of each layer that stores any."""
        return (KvLayer(self.num_key_value_heads, self.head_dim, self.value_dim),) * len(self.attention_layers)

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """How many numbers each state has: what the model keeps of a text however long it is, in the order of use."""
        return ()

    @classmethod
    def published(cls, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        """The fields of a config.json, older spellings of this family put into today's. Raises ValueError for those
        that say that the model is another."""
        return raw

    def settle(self) -> None:
        """Set fields (`self.set`) that others overrule, before any is derived."""

    def settle_heads(self) -> None:
        """Of families that have no fields for them: as many key heads as query heads, of equal parts of hidden_size."""
        self.set("num_key_value_heads", None)
        self.set("head_dim", None)

    def check(self) -> None:
        """Raise ValueError for fields that do not go together. They are all set."""
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"its {self.num_attention_heads} attention heads do not divide into {self.num_key_value_heads} "
                "key-value heads"
            )
        if self.head_dim > MOST_HEAD:
            raise ValueError(f"its heads have {self.head_dim} values, more than {MOST_HEAD}")

    def set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def __post_init__(self) -> None:
        if self.num_hidden_layers > MOST_LAYERS:
            raise ValueError(f"claims {self.num_hidden_layers} layers")
        self.settle()
        for name, rule in _rules(type(self)).items():
            if getattr(self, name) is None:
                self.set(name, rule(self))
        for name, hint in hints(type(self)).items():
            value = getattr(self, name)
            if PER_LAYER in getattr(hint, "__metadata__", ()) and len(value) != self.num_hidden_layers:
                raise ValueError(per_layer(name, self.num_hidden_layers))
        self.check()


def per_layer(name: str, layers: object) -> str:
    return f"{name} must be a list of {layers} {'types' if name.endswith('types') else 'values'}, one for each layer"


def _rules(config: type[Config]) -> dict[str, Callable[[Any], Any]]:
    """Name -> rule of each derived field, in the order of their last declarations."""
    found = {field.name: field.metadata.get("derived") for field in dataclasses.fields(config)}
    declared = [name for kind in reversed(config.__mro__) for name in inspect.get_annotations(kind)]
    names = reversed(dict.fromkeys(reversed(declared)))
    return {name: rule for name in names if (rule := found.get(name))}


_hints: dict[type[Config], dict[str, Any]] = {}


def hints(config: type[Config]) -> dict[str, Any]:
    """Name -> type of each field."""
    if config not in _hints:
        found = get_type_hints(config, include_extras=True)
        _hints[config] = {field.name: found[field.name] for field in dataclasses.fields(config)}
    return _hints[config]


@dataclass(frozen=True, kw_only=True)
class RopeConfig(Config):
    """Of families with rotary positions; `rope_parameters` as `models.rope.rope` takes them, or of each of `ROPES`.

    Of the class:
    PART  partial_rotary_factor, where config.json says none
    """

    PART: ClassVar[float] = 1.0

    rope_parameters: Mapping[str, Any]

    def settle(self) -> None:
        super().settle()
        if self.PART != 1 and self.rope_parameters.get("partial_rotary_factor") is None:
            self.set("rope_parameters", {**self.rope_parameters, "partial_rotary_factor": self.PART})

    def check(self) -> None:
        super().check()
        if self.head_dim % 2:
            raise ValueError(f"its heads have {self.head_dim} values, and rotary positions need an even number")


@dataclass(frozen=True, kw_only=True)
class LayeredConfig(RopeConfig):
    """Of families whose layers may differ in what they see.

    layer_types     of each layer: "full_attention", or "sliding_attention" for one that sees a window
    sliding_window  how many tokens that window has, the one that looks included
    """

    sliding_window: int | None
    layer_types: PerLayer[LayerType]

    def check(self) -> None:
        super().check()
        for kind in self.layer_types:
            if kind not in ("full_attention", "sliding_attention"):
                raise ValueError(f"layer_types has {kind!r}; 'full_attention' and 'sliding_attention' are supported")
        if "sliding_attention" in self.layer_types and not self.sliding_window:
            raise ValueError("layer_types has 'sliding_attention', which needs a sliding_window")

    def window(self, layer: int) -> int:
        """What `Attention` takes: 0 for a layer that sees everything."""
        return self.sliding_window or 0 if self.layer_types[layer] == "sliding_attention" else 0


def every(step: int, layers: int) -> tuple[LayerType, ...]:
    """Types of layers of which every `step`-th sees everything and the others a window."""
    return tuple("sliding_attention" if (i + 1) % step else "full_attention" for i in range(layers))


def patterned(raw: Mapping[str, Any], layers: int) -> Mapping[str, Any]:
    """Fields in which `sliding_window_pattern`, an older spelling, has become layer_types.

    layers  num_hidden_layers where config.json does not say
    """
    step, count = raw.get("sliding_window_pattern"), raw.get("num_hidden_layers", layers)
    if step is None or raw.get("layer_types") is not None or type(count) is not int or count > MOST_LAYERS:
        return raw
    if type(step) is not int or step < 1:
        raise ValueError(f"sliding_window_pattern must be a whole number from 1 on, not {step!r}")
    return {**raw, "layer_types": list(every(step, count))}


def by_type(raw: Mapping[str, Any], full: float, sliding: float) -> Mapping[str, Any]:
    """Fields in which rope_parameters has a rotation of each type of layer.

    full, sliding  rope_theta of those where config.json says none; an older spelling of sliding's is
                   rope_local_base_freq. rope_scaling, an older spelling too, is of full_attention.
    """
    given, older = raw.get("rope_parameters") or {}, raw.get("rope_scaling") or {}
    if not isinstance(given, dict) or not isinstance(older, dict):
        return raw
    if other := [name for name in given if name not in ("full_attention", "sliding_attention")]:
        raise ValueError(f"rope_parameters has {other[0]!r}; full_attention and sliding_attention are supported")
    kinds = {name: given.get(name) or {} for name in ("full_attention", "sliding_attention")}
    if not all(isinstance(kind, dict) for kind in kinds.values()):
        raise ValueError("rope_parameters must hold objects, full_attention and sliding_attention")
    kinds["full_attention"] = {"rope_theta": raw.get("rope_theta", full)} | kinds["full_attention"] | older
    kinds["sliding_attention"] = {"rope_theta": raw.get("rope_local_base_freq", sliding)} | kinds["sliding_attention"]
    return {name: value for name, value in raw.items() if name != "rope_scaling"} | {"rope_parameters": kinds}


def windows_last(c: WindowConfig) -> tuple[str, ...]:
    full = c.num_hidden_layers if c.sliding_window is None else min(c.max_window_layers, c.num_hidden_layers)
    return ("full_attention",) * full + ("sliding_attention",) * (c.num_hidden_layers - full)


@dataclass(frozen=True, kw_only=True)
class WindowConfig(LayeredConfig):
    """Of families, Qwen's, where layers from `max_window_layers` on see a window, unless they are listed.

    use_sliding_window  whether there is a window at all: `sliding_window` is None where this is false
    """

    use_sliding_window: bool = False
    sliding_window: int | None = 4096
    max_window_layers: Count = 28
    layer_types: PerLayer[LayerType] = derived(windows_last)

    def settle(self) -> None:
        super().settle()
        if not self.use_sliding_window:
            self.set("sliding_window", None)

    def check(self) -> None:
        if self.sliding_window is None and "sliding_attention" in self.layer_types:
            raise ValueError("layer_types has 'sliding_attention' without use_sliding_window and a sliding_window")
        super().check()
