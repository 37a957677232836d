"""How a checkpoint is quantized, from the `quantization_config` of its config.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from quickbrown.quant.awq import Awq
from quickbrown.quant.bitsandbytes import BitsAndBytes
from quickbrown.quant.compressed_tensors import CompressedTensors
from quickbrown.quant.fp8 import Fp8
from quickbrown.quant.gptq import Gptq
from quickbrown.quant.hqq import Hqq
from quickbrown.quant.mxfp4 import Mxfp4
from quickbrown.quant.published import Parts
from quickbrown.quant.torchao import TorchAo
from quickbrown.quant.weight import Weight


class Encoding(Protocol):
    """How the tensors of a quantized weight are published.

    suffixes  what follows the weight's name (without its ".weight") in theirs
    unread    what follows it in tensors that no weight needs
    summary   in a line
    """

    @property
    def suffixes(self) -> tuple[str, ...]: ...
    @property
    def unread(self) -> tuple[str, ...]: ...
    @property
    def summary(self) -> str: ...

    def weight(self, parts: Parts) -> Weight:
        """The weight, from its tensors by their suffixes. Raises ValueError for tensors that do not fit together."""
        ...


ENCODINGS: dict[str, Callable[[Mapping[str, Any]], Encoding]] = {
    "gptq": Gptq,
    "awq": Awq,
    "bitsandbytes": BitsAndBytes,
    "compressed-tensors": CompressedTensors,
    "fp8": Fp8,
    "fbgemm_fp8": Fp8,
    "mxfp4": Mxfp4,
    "hqq": Hqq,
    "torchao": TorchAo,
}
_SKIPPED = ("modules_to_not_convert", "llm_int8_skip_modules", "ignore", "skip_modules")  # lists of modules


def encoding(config: Mapping[str, Any]) -> Encoding:
    """The encoding that a quantization_config describes.

    Raises ValueError, naming quant_method and the field, for one that is not read.
    """
    method = config.get("quant_method")
    if method is None and "bits" in config:
        method = "gptq"  # of its first years
    if method is None and (config.get("load_in_4bit") or config.get("load_in_8bit")):
        method = "bitsandbytes"
    if not isinstance(method, str) or method not in ENCODINGS:
        raise ValueError(f"quant_method is {method!r}; read are {', '.join(ENCODINGS)}")
    try:
        return ENCODINGS[method](config)
    except ValueError as error:
        raise ValueError(f"quant_method {method!r}: {error}") from None


def skipped(config: Mapping[str, Any]) -> list[str]:
    """The modules that a quantization_config says are not quantized, without those that patterns describe."""
    names: list[str] = []
    for field in _SKIPPED:
        listed = config.get(field) or []
        if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
            raise ValueError(f"{field} must be a list of names")
        names += [name for name in listed if not name.startswith("re:")]
    return names


def is_skipped(module: str, names: Sequence[str]) -> bool:
    """Whether a module is one of those, or a part of one; a name may leave out what it is itself a part of."""
    return any(f".{name}." in f".{module}." for name in names)
