"""One prompt of a `generate` call: what its processors make of its logits, and when its criteria end it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from quickbrown.generation.chain import Chain
from quickbrown.generation.processors import PrefixAllowedTokens
from quickbrown.hf.arrays import as_kind, to_numpy
from quickbrown.streams import Text
from quickbrown.types import Finish, FinishReason

Floats = npt.NDArray[np.float32]


class Failure:
    """What a caller's own code raised on the engine's thread, to be raised again where the caller is."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    def note(self, error: Exception) -> Exception:
        self.error = self.error or error
        return error


class Processors(Chain):
    """The logits processors of one prompt, a caller's own among them.

    chain   in order; each is called with ids (1, length) and scores (1, vocabulary)
    own     those of them that the caller wrote: they get arrays of the caller's kind, and the row as it was given
    given   the row as it was given, padding included, (n,) int64
    prompt  how many tokens of text it has
    keep    what is kept of each row, "scores", "logits", for the outputs that were asked for
    width   of a row
    sample  which sample they are being called for
    """

    def __init__(
        self,
        chain: Sequence[Any],
        own: Sequence[Any],
        given: npt.NDArray[np.int64],
        prompt: int,
        kind: str,
        keep: frozenset[str],
        failure: Failure,
        width: int,
    ) -> None:
        super().__init__(chain, width)
        self.given, self.prompt = given, prompt
        self.own = {id(processor) for processor in own}
        self.kind = "np" if kind == "list" else kind
        self.keep, self.failure = keep, failure
        self.sample = 0
        self.rows: dict[str, dict[tuple[int, int], Floats]] = {name: {} for name in keep}  # by sample and new token
        # Nobody wants to see the rows that edits make.
        self.expressible = self.expressible and not keep and not any(id(one) in self.own for one in chain)

    def __call__(self, tokens: Sequence[int], sample: int, logits: Floats) -> Floats:
        self.sample = sample
        text = np.asarray(tokens, np.int64)
        as_given = np.concatenate([self.given, text[self.prompt :]])[None]
        scores = logits[None]
        for processor in self.chain:
            try:
                if id(processor) in self.own:
                    ids = as_kind(as_given.copy(), self.kind)
                    changed = processor(ids, as_kind(scores.copy(), self.kind))
                    if changed is None:
                        raise TypeError(f"{name_of(processor)} returned None; a logits processor returns the scores")
                    scores = to_numpy(changed)
                else:
                    scores = processor(as_given if isinstance(processor, PrefixAllowedTokens) else text[None], scores)
            except Exception as error:
                raise self.failure.note(error) from None
        row = scores.reshape(-1) if scores.shape == (1, len(logits)) else scores
        for name, value in (("scores", row), ("logits", logits)):
            if name in self.keep:
                self.rows[name][sample, len(tokens) - self.prompt] = np.array(value, np.float32)
        return row


class Criteria:
    """The stopping criteria of one prompt, each called after every token with ids (1, length): the engine's watch.

    scores  of the row so far, one (1, vocabulary) for each new token, if they are kept; else criteria get None
    """

    def __init__(
        self,
        criteria: Sequence[Any],
        given: npt.NDArray[np.int64],
        kind: str,
        processors: Processors | None,
        failure: Failure,
    ) -> None:
        self.criteria, self.given, self.failure = criteria, given, failure
        self.kind = "np" if kind == "list" else kind
        self.processors = processors if processors is not None and "scores" in processors.keep else None

    def __call__(self, text: Text) -> Finish | None:
        ids = as_kind(np.concatenate([self.given, np.asarray(text.tokens, np.int64)])[None], self.kind)
        scores = None
        if self.processors is not None:
            kept = self.processors.rows["scores"]
            scores = tuple(as_kind(kept[text.sample, i][None], self.kind) for i in range(len(text.tokens)))
        for criterion in self.criteria:
            try:
                answer = criterion(ids, scores)
                if answer is None:
                    raise TypeError(f"{name_of(criterion)} returned None; a stopping criterion returns True or False")
                done = bool(to_numpy(answer).any())
            except Exception as error:
                raise self.failure.note(error) from None
            if done:
                reason = getattr(criterion, "reason", FinishReason.STOP)
                return Finish(reason, name_of(criterion) if reason is FinishReason.STOP else None)
        return None


def name_of(code: Any) -> str:
    """What a caller's function or object is called."""
    return str(getattr(code, "__name__", type(code).__name__))
