"""Stopping criteria, by their names in transformers: what ends a row beside its end tokens."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from quickbrown.generation.filters import log_softmax
from quickbrown.hf.arrays import as_kind, kind_of, to_numpy
from quickbrown.types import FinishReason


class StoppingCriteria:
    """What a caller writes: __call__ takes ids (B, n) and scores, and says of each row whether it ends, (B,) bool.

    scores  one (B, V) for each new token if generate() keeps them (output_scores=True), else None
    reason  of a row that it ends, as results report it

    generate() calls it for each row by itself, B = 1, after each of its tokens.
    """

    reason = FinishReason.STOP

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no __call__; a stopping criterion needs one")


class MaxLengthCriteria(StoppingCriteria):
    """Ends rows of `max_length` tokens, prompt included. max_position_embeddings is the model's own concern here."""

    reason = FinishReason.LENGTH

    def __init__(self, max_length: int, max_position_embeddings: int | None = None) -> None:
        self.max_length, self.max_position_embeddings = max_length, max_position_embeddings

    def __call__(self, input_ids: Any, scores: Any = None, **kwargs: Any) -> Any:
        return _all(input_ids, len(input_ids[0]) >= self.max_length)


class MaxTimeCriteria(StoppingCriteria):
    """Ends rows `max_time` seconds after it was made, or after `initial_timestamp`, `time.time()` seconds."""

    reason = FinishReason.TIME

    def __init__(self, max_time: float, initial_timestamp: float | None = None) -> None:
        self.max_time = max_time
        self.initial_timestamp = time.time() if initial_timestamp is None else initial_timestamp

    def __call__(self, input_ids: Any, scores: Any = None, **kwargs: Any) -> Any:
        return _all(input_ids, time.time() - self.initial_timestamp > self.max_time)


class StopStringCriteria(StoppingCriteria):
    """Ends rows whose last token completes one of some strings, whatever else it holds.

    tokenizer  of `AutoTokenizer`, or a `quickbrown.text.tokenizer.Tokenizer`

    Raises ValueError for a stop string that is empty, TypeError for another tokenizer.
    """

    def __init__(self, tokenizer: Any, stop_strings: str | Sequence[str]) -> None:
        self.stop_strings = (stop_strings,) if isinstance(stop_strings, str) else tuple(stop_strings)
        if not self.stop_strings or not all(isinstance(text, str) and text for text in self.stop_strings):
            raise ValueError(f"stop_strings must be strings that are not empty, not {stop_strings!r}")
        self._bytes_of = core_of(tokenizer).token_bytes
        self._stops = [text.encode() for text in self.stop_strings]

    def __call__(self, input_ids: Any, scores: Any = None, **kwargs: Any) -> Any:
        return _said(input_ids, [self._ends(row) for row in to_numpy(input_ids).tolist()])

    def _ends(self, row: list[int]) -> bool:
        tail, last = b"", self._bytes_of(row[-1])
        longest = max(map(len, self._stops)) - 1
        for token in reversed(row[:-1]):
            if len(tail) >= longest:
                break
            tail = self._bytes_of(token) + tail
        # What begins more than a string's length before the last token was complete before it.
        return any(stop in tail[max(0, len(tail) - len(stop) + 1) :] + last for stop in self._stops)


class EosTokenCriteria(StoppingCriteria):
    """Ends rows of whose last `new_token_length` tokens one is an end token."""

    def __init__(self, eos_token_id: Any) -> None:
        self.eos_token_id = np.atleast_1d(to_numpy(eos_token_id))

    def __call__(self, input_ids: Any, scores: Any = None, new_token_length: int = 1, **kwargs: Any) -> Any:
        return _said(input_ids, np.isin(to_numpy(input_ids)[:, -new_token_length:], self.eos_token_id).any(-1))


class ConfidenceCriteria(StoppingCriteria):
    """Ends rows whose last token was less likely than a threshold. It needs scores."""

    def __init__(self, assistant_confidence_threshold: float) -> None:
        self.assistant_confidence_threshold = assistant_confidence_threshold

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        if scores is None:
            raise ValueError(
                "ConfidenceCriteria needs scores; pass return_dict_in_generate=True and output_scores=True"
            )
        logp = log_softmax(to_numpy(scores[-1]).astype(np.float32, copy=False))
        chosen = np.take_along_axis(logp, to_numpy(input_ids)[:, -1:], -1)[:, 0]
        return _said(input_ids, np.exp(chosen) < self.assistant_confidence_threshold)


class StoppingCriteriaList(list[Any]):
    """Criteria of which any one ends a row."""

    def __call__(self, input_ids: Any, scores: Any = None, **kwargs: Any) -> Any:
        done = np.zeros(len(input_ids), np.bool_)
        for criterion in self:
            done |= to_numpy(criterion(input_ids, scores, **kwargs)).reshape(-1).astype(np.bool_)
        return _said(input_ids, done)

    @property
    def max_length(self) -> int | None:
        """Of the first MaxLengthCriteria, if there is one."""
        return next((c.max_length for c in self if isinstance(c, MaxLengthCriteria)), None)


def validate_stopping_criteria(stopping_criteria: StoppingCriteriaList, max_length: int) -> StoppingCriteriaList:
    """A copy that ends rows at max_length too. Raises ValueError if one of them says another length."""
    there = stopping_criteria.max_length
    if there not in (None, max_length):
        raise ValueError(f"the criteria end rows at {there} tokens and max_length={max_length}; say one of them")
    return StoppingCriteriaList([*stopping_criteria, *([MaxLengthCriteria(max_length)] if there is None else [])])


def core_of(tokenizer: Any) -> Any:
    """The `quickbrown.text.tokenizer.Tokenizer` of a tokenizer. Raises TypeError for one of another library."""
    core = getattr(tokenizer, "core", tokenizer)
    if not hasattr(core, "token_bytes"):
        raise TypeError(f"tokenizer must be one of quickbrown's AutoTokenizer, not {type(tokenizer).__name__}")
    return core


def _all(input_ids: Any, done: bool) -> Any:
    return _said(input_ids, np.full(len(input_ids), done))


def _said(input_ids: Any, done: npt.ArrayLike) -> Any:
    return as_kind(np.asarray(done, np.bool_), kind_of(input_ids))
