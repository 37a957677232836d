"""How weights are to be held, in the words of bitsandbytes."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

from quickbrown.types import UnknownOption

_DTYPES = ("float64", "float32", "float16", "bfloat16", "int8", "uint8")
_INT8 = {
    "llm_int8_threshold": 6.0, "llm_int8_skip_modules": None, "llm_int8_enable_fp32_cpu_offload": False,
    "llm_int8_has_fp16_weight": False,
}  # fmt: skip
_IN_FILES = ("quant_method", "_load_in_8bit", "_load_in_4bit")  # what `to_dict` adds


class BitsAndBytesConfig:
    """Weights in 8 or 4 bits.

    load_in_8bit               blocks of 32 values, 8 bits each
    load_in_4bit               blocks of 64 values, 4 bits each
    bnb_4bit_quant_type        the code book of those 4 bits: "fp4" or "nf4"
    bnb_4bit_use_double_quant  accepted; scales stay in float32, which is no less exact
    bnb_4bit_compute_dtype     accepted, a torch.dtype or its name; sums are float32
    bnb_4bit_quant_storage     the same; a weight's bytes do not depend on it
    llm_int8_*                 only with their defaults: all weights are treated alike, and none leaves the CPU

    Raises ValueError for what is not so, TypeError for a value of another type, UnknownOption for another name.
    """

    quant_method = "bitsandbytes"

    def __init__(
        self,
        load_in_8bit: bool = False,
        load_in_4bit: bool = False,
        llm_int8_threshold: float = 6.0,
        llm_int8_skip_modules: list[str] | None = None,
        llm_int8_enable_fp32_cpu_offload: bool = False,
        llm_int8_has_fp16_weight: bool = False,
        bnb_4bit_compute_dtype: Any = None,
        bnb_4bit_quant_type: str = "fp4",
        bnb_4bit_use_double_quant: bool = False,
        bnb_4bit_quant_storage: Any = None,
        **kwargs: Any,
    ) -> None:
        self.load_in_8bit = load_in_8bit
        self.load_in_4bit = load_in_4bit
        self.llm_int8_threshold = llm_int8_threshold
        self.llm_int8_skip_modules = llm_int8_skip_modules
        self.llm_int8_enable_fp32_cpu_offload = llm_int8_enable_fp32_cpu_offload
        self.llm_int8_has_fp16_weight = llm_int8_has_fp16_weight
        self.bnb_4bit_compute_dtype = _dtype("bnb_4bit_compute_dtype", bnb_4bit_compute_dtype, "float32")
        self.bnb_4bit_quant_type = bnb_4bit_quant_type
        self.bnb_4bit_use_double_quant = bnb_4bit_use_double_quant
        self.bnb_4bit_quant_storage = _dtype("bnb_4bit_quant_storage", bnb_4bit_quant_storage, "uint8")
        for name, value in kwargs.items():
            if name not in _IN_FILES:
                raise UnknownOption(name, list(self.__dict__))
            if name == "quant_method" and str(getattr(value, "value", value)) != "bitsandbytes":
                raise ValueError(f"quant_method={value!r} is not what a BitsAndBytesConfig describes")
        for name in ("load_in_8bit", "load_in_4bit", "bnb_4bit_use_double_quant"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} must be True or False, not {getattr(self, name)!r}")
        if load_in_8bit and load_in_4bit:
            raise ValueError("load_in_8bit and load_in_4bit are both True; set one of them")
        if bnb_4bit_quant_type not in ("fp4", "nf4"):
            raise ValueError(f'bnb_4bit_quant_type must be "fp4" or "nf4", not {bnb_4bit_quant_type!r}')
        for name, default in _INT8.items():
            if getattr(self, name) != default:
                raise ValueError(f"{name}={getattr(self, name)!r} is not supported; leave it out")

    def meaning(self) -> str:
        """The format in which weights are held: "q8", "nf4" or "fp4". Raises ValueError if none was asked for."""
        if self.load_in_8bit:
            return "q8"
        if self.load_in_4bit:
            return self.bnb_4bit_quant_type
        raise ValueError("the BitsAndBytesConfig asks for nothing; set load_in_8bit=True or load_in_4bit=True")

    def is_quantizable(self) -> bool:
        """Whether it asks for anything."""
        return self.load_in_8bit or self.load_in_4bit

    def quantization_method(self) -> str | None:
        """ "llm_int8", "fp4", "nf4" or None."""
        return ("llm_int8" if self.load_in_8bit else self.bnb_4bit_quant_type) if self.is_quantizable() else None

    @classmethod
    def from_dict(cls, config_dict: Mapping[str, Any], return_unused_kwargs: bool = False, **kwargs: Any) -> Any:
        """A config of what `to_dict` gives, other keywords in place of its entries.

        return_unused_kwargs=True  a pair: the config, and the keywords that are none of its entries
        """
        known = cls().__dict__.keys()
        config = cls(**{**config_dict, **{name: value for name, value in kwargs.items() if name in known}})
        left = {name: value for name, value in kwargs.items() if name not in known}
        return (config, left) if return_unused_kwargs else config

    def to_dict(self) -> dict[str, Any]:
        """All entries."""
        private = {f"_{name}": getattr(self, name) for name in ("load_in_4bit", "load_in_8bit")}
        return {**copy.deepcopy(self.__dict__), **private, "quant_method": self.quant_method}

    def to_diff_dict(self) -> dict[str, Any]:
        """The entries that are not the defaults."""
        default = BitsAndBytesConfig().to_dict()
        return {name: value for name, value in self.to_dict().items() if value != default[name]}

    def to_json_string(self, use_diff: bool = True) -> str:
        return json.dumps(self.to_diff_dict() if use_diff else self.to_dict(), indent=2, sort_keys=True) + "\n"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BitsAndBytesConfig) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]  # it can be changed

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.to_json_string(use_diff=False)}"


def _dtype(name: str, value: Any, default: str) -> str:
    """The name of a torch.dtype, or of what is so called."""
    text = default if value is None else str(value).removeprefix("torch.")
    if text not in _DTYPES:
        raise ValueError(f"{name} must be a torch.dtype or one of {', '.join(_DTYPES)}, not {value!r}")
    return text
