"""The one loop: propose, schedule, gather, run, commit."""

from __future__ import annotations

import logging
import math
from itertools import zip_longest

import numpy as np

from quickbrown.engine.batch import Batch, Draws
from quickbrown.engine.blocks import BlockPool
from quickbrown.engine.decoder import Row
from quickbrown.engine.runner import Runner
from quickbrown.engine.scheduler import Scheduler, Work
from quickbrown.engine.sequence import EngineError, Request, Sequence
from quickbrown.types import Event, Finish, FinishReason

log = logging.getLogger(__name__)


class TooLong(ValueError):
    """A request that could not be finished even if it had all memory to itself."""


class Engine:
    """Writes the texts of many requests together on one runner. For use from one thread.

    budget  most tokens a step, >= 1: long prompts are read in chunks of what the running texts leave of it

    What a request gets does not depend on its company, the budget or the memory: noise is keyed by the request's seed
    and the position of the token that is drawn, and a request that had to give its memory away is computed again.
    """

    def __init__(self, runner: Runner, budget: int = 512) -> None:
        self.runner = runner
        self.pool = BlockPool(runner.room(), runner.block_size)
        self.scheduler = Scheduler(self.pool, budget)
        self.live: dict[int, Sequence] = {}
        self.events: list[Event] = []

    @property
    def idle(self) -> bool:
        """Whether another step would do and say nothing."""
        return not self.live and not self.events

    def add(self, request: Request) -> None:
        """Take a request in; its events come from `step`.

        Raises TooLong if it cannot fit in memory, ValueError if it is malformed or its id is in use.
        """
        new, vocab = request.params.max_new_tokens, self.runner.vocab_size
        if request.id in self.live:
            raise ValueError(f"request {request.id} is already being written; give each request its own id")
        if not request.prompt:
            raise ValueError(f"request {request.id} has an empty prompt; it must have at least one token")
        if min(request.prompt) < 0 or max(request.prompt) >= vocab:
            alien = next(token for token in request.prompt if not 0 <= token < vocab)
            raise ValueError(f"the prompt of request {request.id} has token {alien}, outside the vocabulary of {vocab}")
        if not 0 <= request.seed < 2**64:
            raise ValueError(f"the seed of request {request.id} must be from 0 to 2**64 - 1, not {request.seed}")
        blocks, size = len(self.pool.holders), self.pool.size
        if len(request.prompt) + new > blocks * size:
            raise TooLong(
                f"request {request.id} needs room for {len(request.prompt)} prompt tokens and {new} new ones, "
                f"{len(request.prompt) + new} together, but memory has {blocks} blocks of {size}, {blocks * size} "
                f"together; shorten the prompt or lower max_new_tokens"
            )
        self.live[request.id] = sequence = Sequence(request, list(request.prompt))
        self.scheduler.add(sequence)

    def cancel(self, request_id: int) -> bool:
        """End a request now; the next step reports it. False if there is no such request (any more)."""
        sequence = self.live.get(request_id)
        if sequence is None:
            return False
        self.finish(sequence, Finish(FinishReason.CANCELLED))
        return True

    def step(self) -> list[Event]:
        """Move every running request on by at least one token, read or written, and report what came of it."""
        self.propose()
        if work := self.scheduler.schedule():
            batch, draws = gather(work, self.pool.fresh)
            try:
                self.runner.run(batch)
                drawn = self.runner.sample(draws) if len(draws.rows) else None
            except Exception as error:
                log.debug("a step failed", exc_info=True)
                for sequence, _ in work:
                    self.finish(sequence, failure(error))
                self.pool.fresh.clear()
            else:
                self.pool.fresh.clear()
                self.commit(work, [] if drawn is None else list(zip(*(x.tolist() for x in drawn), strict=True)))
        events, self.events = self.events, []
        return events

    def propose(self) -> None:
        """Ask for guesses behind each text whose last token is all that is left to run."""
        for sequence in list(self.scheduler.running):
            sequence.draft = []
            if sequence.stored + 1 == len(sequence.tokens):
                try:
                    sequence.draft = self.known(sequence.request.decoder.propose(sequence))
                except Exception as error:
                    log.debug("a decoder failed", exc_info=True)
                    self.finish(sequence, failure(error))

    def commit(self, work: Work, drawn: list[tuple[int, float]]) -> None:
        """Hand each request its rows, and its sequence what the decoder makes of them."""
        at = 0
        for sequence, count in work:
            length = len(sequence.tokens)
            decided = sequence.stored + count - length + 1
            if decided < 1:
                sequence.stored += count
                continue
            wanted = sequence.request.params.logprobs
            rows = [
                Row(token, logprob if wanted else None, position)
                for position, (token, logprob) in enumerate(drawn[at : at + decided], length)
            ]
            at += decided
            try:
                new, score = self.accept(sequence, rows)
            except Exception as error:
                log.debug("a decoder failed", exc_info=True)
                self.finish(sequence, failure(error))
                continue
            new, finish = cut(sequence, new)
            right = agreement(new, sequence.draft)
            logprobs = chances(new, rows[: right + 1]) if wanted else None
            sequence.stored = min(length + right, length + len(new) - 1)
            sequence.tokens += new
            sequence.draft = []
            sequence.score = score
            if finish:
                self.finish(sequence, finish, tuple(new), logprobs)
            else:
                self.scheduler.trim(sequence)
                self.events.append(Event(sequence.request.id, tuple(new), logprobs))

    def accept(self, sequence: Sequence, rows: list[Row]) -> tuple[list[int], float]:
        """The tokens that the decoder continues the one sequence with, and its score."""
        chosen = sequence.request.decoder.accept([sequence], [rows])
        if len(chosen) != 1 or chosen[0][0] is not sequence:
            raise EngineError("a decoder must continue its one sequence once: forks are not supported yet")
        _, new, score = chosen[0]
        if not new:
            raise EngineError("a decoder must continue its sequence with at least one token")
        return self.known(new), score

    def known(self, tokens: list[int]) -> list[int]:
        """A copy of a decoder's tokens, all in the vocabulary."""
        for token in tokens:
            if not 0 <= token < self.runner.vocab_size:
                raise EngineError(f"a decoder gave token {token}, outside the vocabulary of {self.runner.vocab_size}")
        return list(tokens)

    def finish(
        self,
        sequence: Sequence,
        finish: Finish,
        tokens: tuple[int, ...] = (),
        logprobs: tuple[float, ...] | None = None,
    ) -> None:
        """End a request: its blocks are free at once, its last event comes with the step."""
        del self.live[sequence.request.id]
        self.scheduler.remove(sequence)
        self.events.append(Event(sequence.request.id, tokens, logprobs, finish))

    def check(self) -> None:
        """Raise EngineError, with a sentence, unless everything that should hold between two steps does."""
        self.scheduler.check()
        order = [sequence.request.id for sequence in (*self.scheduler.running, *self.scheduler.waiting)]
        if order != list(self.live):
            raise EngineError(f"requests came in the order {list(self.live)}, but are served in the order {order}")


def gather(work: Work, fresh: list[int]) -> tuple[Batch, Draws]:
    """The arrays of one step: nothing to keep in order between steps."""
    tokens: list[int] = []
    positions: list[int] = []
    starts, block_starts = [0], [0]
    blocks: list[int] = []
    logit_rows: list[int] = []
    seeds: list[int] = []
    drawn: list[int] = []
    temperatures: list[float] = []
    top_k: list[int] = []
    top_p: list[float] = []
    min_p: list[float] = []
    logprobs = False
    for sequence, count in work:
        first, last, length = sequence.stored, sequence.stored + count, len(sequence.tokens)
        tokens += sequence.tokens[first:last]
        tokens += sequence.draft
        positions += range(first, last)
        blocks += sequence.blocks
        params = sequence.request.params
        for position in range(max(first, length - 1), last):
            logit_rows.append(starts[-1] + position - first)
            seeds.append(sequence.request.seed)
            drawn.append(position + 1)
            temperatures.append(params.temperature)
            top_k.append(params.top_k)
            top_p.append(params.top_p)
            min_p.append(params.min_p)
            logprobs |= params.logprobs
        starts.append(len(tokens))
        block_starts.append(len(blocks))
    return Batch(
        tokens=np.array(tokens, np.int32),
        positions=np.array(positions, np.int32),
        starts=np.array(starts, np.int32),
        blocks=np.array(blocks, np.int32),
        block_starts=np.array(block_starts, np.int32),
        logit_rows=np.array(logit_rows, np.int32),
        fresh=np.array(fresh, np.int32),
    ), Draws(
        rows=np.arange(len(logit_rows), dtype=np.int32),
        seeds=np.array(seeds, np.uint64),
        positions=np.array(drawn, np.int64),
        temperatures=np.array(temperatures, np.float32),
        top_k=np.array(top_k, np.int32),
        top_p=np.array(top_p, np.float32),
        min_p=np.array(min_p, np.float32),
        logprobs=logprobs,
    )


def cut(sequence: Sequence, new: list[int]) -> tuple[list[int], Finish | None]:
    """New tokens up to where the text ends, and why it does if it does."""
    new = new[: sequence.left]
    for i, token in enumerate(new, 1):
        if token in sequence.request.stop_tokens:
            return new[:i], Finish(FinishReason.STOP, token)
    return new, Finish(FinishReason.LENGTH) if len(new) == sequence.left else None


def agreement(new: list[int], draft: list[int]) -> int:
    """How many guesses came true: their keys and values stay."""
    for i, (token, guess) in enumerate(zip(new, draft, strict=False)):
        if token != guess:
            return i
    return min(len(new), len(draft))


def chances(new: list[int], rows: list[Row]) -> tuple[float, ...]:
    """Log-probabilities of the tokens that were drawn; nan for those that a decoder wrote without drawing them.

    `rows` are those behind guesses that came true: the others answer to another text.
    """
    return tuple(
        row.logprob if row and row.logprob is not None and row.token == token else math.nan
        for token, row in zip_longest(new, rows[: len(new)])
    )


def failure(error: Exception) -> Finish:
    """The finish of a request that an exception ended."""
    sentence = str(error) if isinstance(error, EngineError) else f"{type(error).__name__}: {error}"
    return Finish(FinishReason.ERROR, sentence)
