"""quickbrown: text generation with language models on the machine people have."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quickbrown.async_llm import AsyncLLM
    from quickbrown.generation.seeds import set_seed
    from quickbrown.llm import LLM
    from quickbrown.streams import AsyncBatchStream, AsyncStream, BatchStream, GenerationError, Stream
    from quickbrown.types import Completion, Finish, FinishReason, SamplingParams, TooLong, UnknownOption

__version__ = "0.1.0"

__all__ = [
    "LLM",
    "AsyncBatchStream",
    "AsyncLLM",
    "AsyncStream",
    "BatchStream",
    "Completion",
    "Finish",
    "FinishReason",
    "GenerationError",
    "SamplingParams",
    "Stream",
    "TooLong",
    "UnknownOption",
    "set_seed",
]

# Loaded when first asked for: importing the package alone costs next to nothing.
_HOME = {
    "LLM": "llm",
    "AsyncBatchStream": "streams",
    "AsyncLLM": "async_llm",
    "AsyncStream": "streams",
    "BatchStream": "streams",
    "Completion": "types",
    "Finish": "types",
    "FinishReason": "types",
    "GenerationError": "streams",
    "SamplingParams": "types",
    "Stream": "streams",
    "TooLong": "types",
    "UnknownOption": "types",
    "set_seed": "generation.seeds",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'quickbrown' has no attribute {name!r}")
    return getattr(importlib.import_module(f"quickbrown.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
