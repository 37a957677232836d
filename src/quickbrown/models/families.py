"""Which families there are. Only the file of the one that is asked for is imported."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from quickbrown.models import config
from quickbrown.models.gguf import Gguf

if TYPE_CHECKING:
    from quickbrown.models.blocks import Decoder

# file: model_type of config.json, general.architecture of GGUF files
FILES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "bloom": (("bloom",), ("bloom",)),
    "cohere": (("cohere",), ("command-r",)),
    "cohere2": (("cohere2",), ("cohere2",)),
    "deepseek_v2": (("deepseek_v2", "deepseek_v3"), ()),
    "ernie4_5": (("ernie4_5",), ("ernie4_5",)),
    "ernie4_5_moe": (("ernie4_5_moe",), ("ernie4_5-moe",)),
    "exaone4": (("exaone4",), ("exaone4",)),
    "falcon": (("falcon",), ("falcon",)),
    "falcon_h1": (("falcon_h1",), ()),
    "gemma": (("gemma",), ("gemma",)),
    "gemma2": (("gemma2",), ("gemma2",)),
    "gemma3": (("gemma3", "gemma3_text"), ("gemma3",)),
    "gemma4": (("gemma4", "gemma4_text"), ()),
    "glm4": (("glm4",), ("glm4",)),
    "glm4_moe": (("glm4_moe",), ("glm4moe",)),
    "gpt2": (("gpt2",), ("gpt2",)),
    "gpt_neox": (("gpt_neox",), ("gptneox",)),
    "gpt_oss": (("gpt_oss",), ("gpt-oss",)),
    "gptj": (("gptj",), ()),
    "granite": (("granite",), ("granite",)),
    "granitemoe": (("granitemoe",), ("granitemoe",)),
    "granitemoehybrid": (("granitemoehybrid",), ()),
    "lfm2": (("lfm2",), ("lfm2",)),
    "llama": (("llama",), ("llama",)),
    "mamba2": (("mamba2",), ()),
    "mistral": (("mistral",), ()),  # GGUF files of it say llama
    "mixtral": (("mixtral",), ("llama of experts",)),  # llama, with an expert_count
    "mpt": (("mpt",), ("mpt",)),
    "nemotron": (("nemotron",), ("nemotron",)),
    "nemotron_h": (("nemotron_h",), ()),
    "olmo2": (("olmo2",), ("olmo2",)),
    "olmo3": (("olmo3",), ("olmo2 of windows",)),  # olmo2, with an attention.sliding_window
    "olmoe": (("olmoe",), ("olmoe",)),
    "opt": (("opt",), ()),
    "phi": (("phi",), ("phi2",)),
    "phi3": (("phi3",), ("phi3",)),
    "qwen2": (("qwen2",), ("qwen2",)),
    "qwen2_moe": (("qwen2_moe",), ("qwen2moe",)),
    "qwen3": (("qwen3",), ("qwen3",)),
    "qwen3_5": (("qwen3_5", "qwen3_5_text"), ()),
    "qwen3_5_moe": (("qwen3_5_moe", "qwen3_5_moe_text"), ()),
    "qwen3_moe": (("qwen3_moe",), ("qwen3moe",)),
    "qwen3_next": (("qwen3_next",), ()),
    "seed_oss": (("seed_oss",), ("seed_oss",)),
    "smollm3": (("smollm3",), ("smollm3",)),
    "stablelm": (("stablelm",), ("stablelm",)),
    "starcoder2": (("starcoder2",), ("starcoder2",)),
}
MODEL_TYPES = {name: file for file, (names, _) in FILES.items() for name in names}
ARCHITECTURES = {name: file for file, (_, names) in FILES.items() for name in names}

MOST_WEIGHTS = 1 << 18  # of one model, so that no config makes a list that fills the memory


class ModelType(Protocol):
    """A class of models: as `Decoder` (models/blocks.py), made of a config and weights."""

    EMBEDDING: ClassVar[str]
    HEAD: ClassVar[str]
    RENAMED: ClassVar[Mapping[str, str]]
    UNREAD: ClassVar[tuple[str, ...]]
    INPUTS_FIRST: ClassVar[tuple[str, ...]]

    def __call__(self, config: Any, weights: Any) -> Decoder: ...


@dataclass(frozen=True)
class Family:
    """What a file of this folder says.

    name    its `model_type`
    Config  the fields of config.json that the mathematics reads
    Model   the weights by their published names, and the forward pass
    gguf    how GGUF files hold it; None where none do
    """

    name: str
    Config: type[config.Config]
    Model: ModelType
    gguf: Gguf | None

    def configure(self, fields: Mapping[str, Any]) -> config.Config:
        """Of fields by name, among which others may be. Raises ValueError for values that cannot be."""
        known = {field.name for field in dataclasses.fields(self.Config)}
        return self.Config(**{name: value for name, value in fields.items() if name in known})

    def shapes(self, config: config.Config) -> dict[str, tuple[int, ...]]:
        """Name -> shape of every weight that a model of this config has, in the order in which it asks for them.

        Raises ValueError for a config that cannot be.
        """
        asked = Asked()
        self.Model(config, asked)
        return asked.shapes


def of_model_type(model_type: object) -> Family:
    """Raises ValueError for a family that is not supported."""
    if not isinstance(model_type, str) or model_type not in MODEL_TYPES:
        known = listed(MODEL_TYPES)
        raise ValueError(f"is of a model of the family {model_type!r}; the supported families are {known}")
    return _family(MODEL_TYPES[model_type], model_type)


def of_architecture(architecture: str, experts: int = 0, window: int = 0) -> Family:
    """Of a GGUF file that counts so many experts, and so many tokens in a window. Raises ValueError for an architecture
    that is not supported."""
    for count, of in ((experts, " of experts"), (window, " of windows")):
        if count and architecture + of in ARCHITECTURES:
            architecture += of
    if architecture not in ARCHITECTURES:
        known = listed(ARCHITECTURES)
        raise ValueError(f"holds a model of architecture {architecture!r}; the supported ones are {known}")
    file = ARCHITECTURES[architecture]
    return _family(file, file)


def listed(names: Mapping[str, str]) -> str:
    return ", ".join(sorted(names))


def _family(file: str, name: str) -> Family:
    module = importlib.import_module(f"quickbrown.models.{file}")
    return Family(name, module.Config, module.Model, getattr(module, "GGUF", None))


def shapes(fields: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The same as `Family.shapes`, of the fields of a config, `model_type` among them."""
    family = of_model_type(fields["model_type"])
    return family.shapes(family.configure(fields))


class Asked:
    """Weights (models/blocks.py) that are not there: what is asked for is written down."""

    def __init__(self) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}

    def take(self, name: str, *shape: int) -> Blank:
        if len(self.shapes) >= MOST_WEIGHTS:
            raise ValueError(f"needs more than {MOST_WEIGHTS} weights")
        if self.shapes.setdefault(name, shape) != shape:
            raise AssertionError(f"{name} is asked for as {self.shapes[name]} and as {shape}")
        return Blank(shape)


@dataclass(frozen=True, eq=False)
class Blank:
    """A weight's shape in a weight's place: what a model may ask of one (quant/weight.py) while it is made."""

    shape: tuple[int, ...]

    def rows(self, start: int, stop: int) -> Blank:
        return Blank((stop - start, *self.shape[1:]))

    def part(self, index: int) -> Blank:
        return Blank(self.shape[1:])

    def picked(self, rows: Any) -> Blank:
        return Blank((len(rows), *self.shape[1:]))

    def plus(self, more: float) -> Blank:
        return self

    def stacked(self, more: Sequence[Blank]) -> Blank:
        return Blank((1 + len(more), *self.shape))

    def transposed(self) -> Blank:
        return Blank(self.shape[::-1])
