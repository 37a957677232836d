"""What calls give back: fields by name, by key or in order; those that were not asked for are absent."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


class ModelOutput:
    """A dataclass that is also a mapping of its fields that are not None, and a tuple of their values."""

    def keys(self) -> list[str]:
        return [f.name for f in dataclasses.fields(self) if getattr(self, f.name) is not None]  # type: ignore[arg-type]

    def values(self) -> list[Any]:
        return [getattr(self, name) for name in self.keys()]

    def items(self) -> list[tuple[str, Any]]:
        return [(name, getattr(self, name)) for name in self.keys()]

    def to_tuple(self) -> tuple[Any, ...]:
        return tuple(self.values())

    def __getitem__(self, key: str | int | slice) -> Any:
        if isinstance(key, str):
            if key not in self.keys():
                raise KeyError(key)
            return getattr(self, key)
        return self.to_tuple()[key]

    def __contains__(self, key: object) -> bool:
        return key in self.keys()

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.keys())


@dataclass
class GenerateDecoderOnlyOutput(ModelOutput):
    """What `generate(..., return_dict_in_generate=True)` gives for N rows, of which the longest got T new tokens.

    sequences        (N, n + T) token ids: the rows as given, each followed by its new tokens, then pads
    logprobs         (N, T) float32: log-probabilities of the chosen tokens in the model's own distribution, before any
                     processor or temperature; nan behind a row's end
    finish_reasons   of each row: "stop", "length" or "time"
    stopped_by       of each row: the stop token's id, the stop string, the criterion's name, or None
    scores           T arrays (N, vocabulary), processed and filtered, if output_scores; behind a row's end all is -inf
                     but the pad token
    logits           T arrays (N, vocabulary), as the model gave them, if output_logits; 0 behind a row's end
    """

    sequences: Any = None
    logprobs: Any = None
    finish_reasons: list[str] | None = None
    stopped_by: list[int | str | None] | None = None
    scores: tuple[Any, ...] | None = None
    logits: tuple[Any, ...] | None = None


@dataclass
class CausalLMOutput(ModelOutput):
    """What `model(...)` gives for (B, n) tokens.

    loss    the mean cross-entropy of each next label, of those that are not -100, if labels were given
    logits  (B, n, vocabulary) float32, or of the positions that were asked for; 0 where the mask hides a token
    """

    loss: Any = None
    logits: Any = None
