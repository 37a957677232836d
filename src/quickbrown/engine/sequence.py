"""What is being written: a request asks, its sequence grows."""

from __future__ import annotations

from dataclasses import dataclass, field

from quickbrown.engine.decoder import Decoder
from quickbrown.types import SamplingParams


class EngineError(RuntimeError):
    """A rule of the engine is broken, by a decoder or by the engine itself; the message says which."""


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """One text to write, in token ids.

    id           the caller's number for it, unique among the requests not yet finished
    prompt       at least one token
    decoder      belongs to this request alone
    params       how to draw, and how much at most; `params.seed` and `params.stop` are the caller's business
    seed         the resolved seed, 0 to 2**64 - 1
    stop_tokens  tokens that end the text; the one that did is its last
    """

    id: int
    prompt: tuple[int, ...]
    decoder: Decoder
    params: SamplingParams
    seed: int
    stop_tokens: frozenset[int] = frozenset()


@dataclass(slots=True, eq=False)
class Sequence:
    """One text: the prompt and what has been written since.

    tokens  everything decided so far
    blocks  its block table
    stored  how many of `tokens` have keys and values in `blocks`; always short of all of them
    draft   guesses that run in this step
    score   the decoder's own measure of the text
    """

    request: Request
    tokens: list[int]
    blocks: list[int] = field(default_factory=list)
    stored: int = 0
    draft: list[int] = field(default_factory=list)
    score: float = 0.0

    @property
    def left(self) -> int:
        """How many tokens may still be written."""
        return self.request.params.max_new_tokens + len(self.request.prompt) - len(self.tokens)
