"""quickbrown: text generation with language models on the machine people have."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quickbrown.llm import LLM, Stream
    from quickbrown.types import Completion, Finish, FinishReason, SamplingParams, UnknownOption

__version__ = "0.1.0"

__all__ = ["LLM", "Completion", "Finish", "FinishReason", "SamplingParams", "Stream", "UnknownOption"]

# Loaded when first asked for: importing the package alone costs next to nothing.
_HOME = {
    "LLM": "llm",
    "Stream": "llm",
    "Completion": "types",
    "Finish": "types",
    "FinishReason": "types",
    "SamplingParams": "types",
    "UnknownOption": "types",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'quickbrown' has no attribute {name!r}")
    return getattr(importlib.import_module(f"quickbrown.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
