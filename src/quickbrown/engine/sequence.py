"""What is being written: a request asks, its sequences grow."""

from __future__ import annotations

from dataclasses import dataclass, field

from quickbrown.engine.decoder import Decoder, Processor
from quickbrown.types import SamplingParams


class EngineError(RuntimeError):
    """A rule of the engine is broken, by a decoder or by the engine itself; the message says which."""


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """One or more texts to write after one prompt, in token ids.

    id           the caller's number for it, unique among the requests not yet finished
    prompt       at least one token
    decoder      of this request alone, or of several, which it is asked about together
    params       how to draw, how much at most and how long; its `seed`, `n` and `stop` are the caller's business
    seeds        the resolved seed of each sample, 0 to 2**64 - 1
    stop_tokens  tokens that end the text; the one that did is its last
    processor    changes each row before it is drawn from, or None
    span         what the model's rotations depend on beside the position, fixed for the request; texts of different
                 spans share no memory; 0 for nearly all models
    """

    id: int
    prompt: tuple[int, ...]
    decoder: Decoder
    params: SamplingParams
    seeds: tuple[int, ...]
    stop_tokens: frozenset[int] = frozenset()
    processor: Processor | None = None
    span: int = 0


@dataclass(slots=True, eq=False)
class Sequence:
    """One text: the prompt and what has been written since.

    order     of arrival: the number of its request, and its first sample
    tokens    everything decided so far
    samples   which samples of the request it is: all of them until their first tokens are drawn, none once it has ended
    blocks    its block table
    stored    how many of `tokens` have keys and values in `blocks`; always short of all of them
    state     the place of the states after those, where the model has such; None: those of no text
    written   the place that the states of this step are written to
    digests   of the full blocks of `tokens`, as far as they were asked for
    named     how many of `blocks`, from the first, are full and known to others by their digest
    draft     guesses that run in this step
    guessed   how many guesses have run
    accepted  how many of those came true
    score     the decoder's own measure of the text
    reused    how many tokens of the prompt were found in memory when it was first admitted; -1 before
    """

    request: Request
    order: tuple[int, int]
    tokens: list[int]
    samples: tuple[int, ...]
    blocks: list[int] = field(default_factory=list)
    stored: int = 0
    state: int | None = None
    written: int | None = None
    digests: list[bytes] = field(default_factory=list)
    named: int = 0
    draft: list[int] = field(default_factory=list)
    guessed: int = 0
    accepted: int = 0
    score: float = 0.0
    reused: int = -1

    @property
    def left(self) -> int:
        """How many tokens may still be written."""
        return self.request.params.max_new_tokens + len(self.request.prompt) - len(self.tokens)

    @property
    def name(self) -> str:
        """What messages call it."""
        one = f" (sample {self.samples[0]})" if len(self.samples) == 1 and len(self.request.seeds) > 1 else ""
        return f"request {self.request.id}{one}"
