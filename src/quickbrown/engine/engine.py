"""The one loop: propose, schedule, gather, run, commit."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Generator, Iterator
from collections.abc import Sequence as Seq
from itertools import zip_longest
from typing import cast

import numpy as np
import numpy.typing as npt

from quickbrown.engine.batch import Batch, Draws
from quickbrown.engine.blocks import BlockPool, StatePool
from quickbrown.engine.decoder import Decoder, Editor, Meter, Row
from quickbrown.engine.runner import Runner
from quickbrown.engine.scheduler import DEEP, Scheduler, Work, is_written
from quickbrown.engine.sequence import EngineError, Request, Sequence
from quickbrown.types import Edit, Event, Finish, FinishReason, TooLong

log = logging.getLogger(__name__)

Edits = dict[Sequence, list[Seq[Edit]]]  # by sequences whose rows are drawn from in the step's one call: `edits_of`


class Engine:
    """Writes the texts of many requests together on one runner. For use from one thread.

    budget  most tokens a step, >= 1: long prompts are read in chunks of what the running texts leave of it
    clock   seconds, for `max_time`
    deep    as Scheduler has it
    meter   is told how long steps take, by `clock`

    What a request gets does not depend on its company, the budget, the memory or what is found in it: noise is keyed by
    the sample's seed and the position of the token that is drawn, and a text that had to give its memory away is
    computed again.
    """

    def __init__(
        self,
        runner: Runner,
        budget: int = 512,
        clock: Callable[[], float] = time.monotonic,
        deep: float = DEEP,
        meter: Meter | None = None,
    ) -> None:
        self.runner = runner
        self.clock = clock
        self.budget = budget
        self.deep = deep
        self.meter = meter
        self.arrivals = 0
        self.reset()

    def reset(self) -> None:
        """Start with empty books: nobody is here, and nothing is known of what memory holds."""
        self.pool = BlockPool(self.runner.room(), self.runner.block_size)
        places = self.runner.states()
        self.states = StatePool(places) if places else None
        self.scheduler = Scheduler(self.pool, self.budget, self.states, self.deep)
        self.live: dict[int, list[Sequence]] = {}
        self.deadlines: dict[int, float] = {}
        self.events: list[Event] = []

    @property
    def idle(self) -> bool:
        """Whether another step would do and say nothing."""
        return not self.live and not self.events

    def validate(self, request: Request) -> None:
        """Raise TooLong if a request cannot fit in memory, ValueError if it is malformed. For use from any thread."""
        new, vocab = request.params.max_new_tokens, self.runner.vocab_size
        if not request.prompt:
            raise ValueError("the request has an empty prompt; it must have at least one token")
        if min(request.prompt) < 0 or max(request.prompt) >= vocab:
            alien = next(token for token in request.prompt if not 0 <= token < vocab)
            raise ValueError(f"the prompt has token {alien}, outside the vocabulary of {vocab}")
        if not request.seeds:
            raise ValueError("the request has no seed; it needs one for each sample")
        for seed in request.seeds:
            if not 0 <= seed < 2**64:
                raise ValueError(f"the seeds of a request must be from 0 to 2**64 - 1, not {seed}")
        blocks, size = self.runner.room(), self.runner.block_size
        if len(request.prompt) + new > blocks * size:
            raise TooLong(
                f"the request needs room for {len(request.prompt)} prompt tokens and {new} new ones, "
                f"{len(request.prompt) + new} together, but memory has {blocks} blocks of {size}, {blocks * size} "
                f"together; shorten the prompt or lower max_new_tokens"
            )

    def add(self, request: Request) -> None:
        """Take a request in; its events come from `step`. Raises as `validate`, and ValueError if its id is in use."""
        self.validate(request)
        if request.id in self.live:
            raise ValueError(f"request {request.id} is already being written; give each request its own id")
        samples = tuple(range(len(request.seeds)))
        sequence = Sequence(request, (self.arrivals, 0), list(request.prompt), samples)
        self.arrivals += 1
        self.live[request.id] = [sequence]
        if request.params.max_time is not None:
            self.deadlines[request.id] = self.clock() + request.params.max_time
        self.scheduler.add(sequence)

    def cancel(self, request_id: int, sample: int | None = None) -> bool:
        """End a request, or one sample of it, now; the next step reports it. False if that has ended or never was."""
        return self.end(request_id, Finish(FinishReason.CANCELLED), sample)

    def abort(self, error: Exception) -> list[Event]:
        """End every request with an error, and start with empty books: for when `step` itself has failed."""
        for request_id in list(self.live):
            for sequence in self.live[request_id]:
                self.report(sequence, sequence.samples, failure(error))
        events = self.events
        self.reset()
        return events

    def step(self) -> list[Event]:
        """Move every running request on by at least one token, read or written, and report what came of it."""
        self.expire()
        self.propose()
        if work := self.scheduler.schedule():
            if self.meter is not None and all(is_written(sequence) for sequence, _ in work):
                begin = self.clock()
                self.run(work)
                self.meter.step(len(work), sum(count for _, count in work), self.clock() - begin)
            else:
                self.run(work)
        events, self.events = self.events, []
        return events

    def expire(self) -> None:
        """End the requests whose time is over."""
        if self.deadlines:
            now = self.clock()
            for request_id in [id for id, deadline in self.deadlines.items() if now >= deadline]:
                self.end(request_id, Finish(FinishReason.TIME))

    def propose(self) -> None:
        """Ask for guesses behind each text whose last token is all that is left to run."""
        asked: dict[int, list[Sequence]] = {}  # by decoder
        for sequence in self.scheduler.running:
            sequence.draft = []
            if is_written(sequence) and len(sequence.samples) == 1:
                asked.setdefault(id(sequence.request.decoder), []).append(sequence)
        for sequences in asked.values():
            self.guess(sequences[0].request.decoder, sequences)

    def guess(self, decoder: Decoder, sequences: list[Sequence]) -> None:
        """Ask a decoder for guesses behind its sequences; if that fails, about each alone."""
        try:
            drafts = [self.known(draft) for draft in decoder.propose(sequences)]
            for sequence, draft in zip(sequences, drafts, strict=True):
                sequence.draft = draft
        except Exception as error:
            if len(sequences) == 1:
                self.fail(sequences[0], error)
                return
            for one in sequences:
                if one.samples:  # has not ended with another of its request
                    self.guess(decoder, [one])

    def run(self, work: Work) -> None:
        """Run a step's work together; if that fails, each sequence alone, so that only the guilty request ends."""
        edits = {one: found for one, count in work if (found := edits_of(one, count)) is not None}
        batch, draws = gather(work, list(self.pool.fresh), edits)
        try:
            while self.pool.copies:
                self.runner.copy(*self.pool.copies[0])
                del self.pool.copies[0]
            drawn = iter(self.runner.run(batch, draws))
            redrawn = iter(self.redraw(work, edits))
        except Exception as error:
            if len(work) == 1:
                self.fail(work[0][0], error)
                return
            log.debug("a step failed; its sequences run alone", exc_info=True)
            for one in work:
                if one[0].samples:  # has not ended with another of its request
                    self.run([one])
        else:
            self.pool.fresh.clear()
            self.commit(work, edits, drawn, redrawn)

    def redraw(self, work: Work, edits: Edits) -> list[tuple[int, float]]:
        """Draw for the requests whose processor is called, from rows that it has changed."""
        draws, processed = Draws(), []
        row = 0
        for sequence, count in work:
            rows, processor = decided(sequence, count), sequence.request.processor
            if processor is not None and rows and sequence not in edits:
                logits, text = self.runner.logits(), sequence.tokens + sequence.draft
                try:
                    changed = [
                        checked(processor(text[: position + 1], sample, logits[row + i]), logits[row + i])
                        for sample in sequence.samples
                        for i, position in enumerate(rows)
                    ]
                except Exception as error:
                    self.fail(sequence, error)
                else:
                    processed += changed
                    wish(draws, sequence, row, rows)
            row += len(rows)
        return self.runner.redraw(draws, np.stack(processed)) if processed else []

    def commit(
        self, work: Work, edits: Edits, drawn: Iterator[tuple[int, float]], redrawn: Iterator[tuple[int, float]]
    ) -> None:
        """Hand each sequence the rows that decide something, and note of the others that they are stored.

        drawn, redrawn  for sequences in `edits` and others, in the order of `work`
        """
        all_rows = []
        for sequence, count in work:
            wanted = sequence.request.params.logprobs
            source = drawn if sequence in edits else redrawn
            positions = decided(sequence, count)
            rows = []
            for _ in sequence.samples if positions else ():
                found = [next(source) for _ in positions]
                rows.append(
                    [Row(token, p if wanted else None, at + 1) for at, (token, p) in zip(positions, found, strict=True)]
                )
            all_rows.append(rows)
        for (sequence, count), rows in zip(work, all_rows, strict=True):
            if not sequence.samples:  # has ended with another of its request
                continue
            if rows:
                self.extend(sequence, rows)
            else:
                self.scheduler.advance(sequence, count, count)
                self.scheduler.settle(sequence)

    def extend(self, sequence: Sequence, rows: list[list[Row]]) -> None:
        """Let a sequence go on as its decoder says, once for each of its samples: rows[i] is the i-th one's."""
        try:
            chosen = self.accept(sequence, rows)
        except Exception as error:
            self.fail(sequence, error)
            return
        forks = [self.fork(sequence, sample) for sample in sequence.samples[1:]]
        sequence.samples = sequence.samples[:1]
        self.grow(sequence, *chosen[0], rows[0])
        for fork, (new, score), its_rows in zip(forks, chosen[1:], rows[1:], strict=True):
            self.grow(fork, new, score, its_rows)

    def grow(self, sequence: Sequence, new: list[int], score: float, rows: list[Row]) -> None:
        """Write new tokens behind a sequence, of which those that were guessed are stored, and end it if it is over."""
        length = len(sequence.tokens)
        new, finish = cut(sequence, new)
        right = agreement(new, sequence.draft)
        logprobs = chances(new, rows[: right + 1]) if sequence.request.params.logprobs else None
        ran = length + len(sequence.draft) - sequence.stored
        self.scheduler.advance(sequence, ran, min(length + right, length + len(new) - 1) - sequence.stored)
        sequence.guessed += len(sequence.draft)
        sequence.accepted += right
        sequence.tokens += new
        sequence.draft = []
        sequence.score = score
        self.scheduler.settle(sequence)
        if finish:
            self.finish(sequence, finish, tuple(new), logprobs)
        else:
            self.report(sequence, sequence.samples, None, tuple(new), logprobs)

    def fork(self, sequence: Sequence, sample: int) -> Sequence:
        """Another sequence with the same past, which holds the same blocks and states."""
        fork = Sequence(
            request=sequence.request,
            order=(sequence.order[0], sample),
            tokens=list(sequence.tokens),
            samples=(sample,),
            blocks=[self.pool.hold(block) for block in sequence.blocks],
            stored=sequence.stored,
            state=self.share(sequence.state),
            written=self.share(sequence.written),
            digests=list(sequence.digests),
            named=sequence.named,
            reused=sequence.reused,
        )
        self.live[sequence.request.id].append(fork)
        self.scheduler.fork(fork)
        return fork

    def share(self, state: int | None) -> int | None:
        """Hold a place of states once more, where it is one."""
        return state if state is None or self.states is None else self.states.hold(state)

    def accept(self, sequence: Sequence, rows: list[list[Row]]) -> list[tuple[list[int], float]]:
        """The tokens that the decoder continues each sample of a sequence with, and their score."""
        given = [sequence] * len(rows)
        chosen = sequence.request.decoder.accept(given, rows)
        if [one for one, _, _ in chosen] != given:
            raise EngineError("a decoder must continue each of its sequences once, in the order given")
        if not all(new for _, new, _ in chosen):
            raise EngineError("a decoder must continue its sequence with at least one token")
        return [(self.known(new), score) for _, new, score in chosen]

    def known(self, tokens: list[int]) -> list[int]:
        """A copy of a decoder's tokens, all in the vocabulary."""
        for token in tokens:
            if not 0 <= token < self.runner.vocab_size:
                raise EngineError(f"a decoder gave token {token}, outside the vocabulary of {self.runner.vocab_size}")
        return list(tokens)

    def fail(self, sequence: Sequence, error: Exception) -> None:
        """End a request with all its samples, because of an exception."""
        log.debug("%s failed", sequence.name, exc_info=error)
        self.end(sequence.request.id, failure(error))

    def end(self, request_id: int, finish: Finish, sample: int | None = None) -> bool:
        """End a request, or one sample of it, where it is. False if there is nothing to end."""
        ended = [one for one in self.live.get(request_id, ()) if sample is None or sample in one.samples]
        for sequence in ended:
            if sample is not None and len(sequence.samples) > 1:
                self.report(sequence, (sample,), finish)
                sequence.samples = tuple(other for other in sequence.samples if other != sample)
            else:
                self.finish(sequence, finish)
        return bool(ended)

    def finish(
        self,
        sequence: Sequence,
        finish: Finish,
        tokens: tuple[int, ...] = (),
        logprobs: tuple[float, ...] | None = None,
    ) -> None:
        """End a sequence: its blocks are there for others at once, its last event comes with the step."""
        self.report(sequence, sequence.samples, finish, tokens, logprobs)
        sequence.samples = ()
        self.scheduler.remove(sequence)
        request_id = sequence.request.id
        self.live[request_id].remove(sequence)
        if not self.live[request_id]:
            del self.live[request_id]
            self.deadlines.pop(request_id, None)

    def report(
        self,
        sequence: Sequence,
        samples: tuple[int, ...],
        finish: Finish | None,
        tokens: tuple[int, ...] = (),
        logprobs: tuple[float, ...] | None = None,
    ) -> None:
        """Add an event for each of the samples."""
        for sample in samples:
            counts = max(0, sequence.reused), sequence.guessed, sequence.accepted
            self.events.append(Event(sequence.request.id, tokens, logprobs, finish, sample, *counts))

    def logits(self, tokens: list[int], last: int | None = None, span: int = 0) -> npt.NDArray[np.float32]:
        """The logits after each of `tokens`, or the last so many: (n, vocab_size) float32, in a pass of its own.

        span  as in Request

        Raises ValueError if the texts being written leave no room for it.
        """
        begin = len(tokens) - min(len(tokens), last or len(tokens))
        out = np.empty((len(tokens) - begin, self.runner.vocab_size), np.float32)
        for first, rows in self.read(tokens, begin, span):
            out[first - begin : first - begin + len(rows)] = rows
        return out

    def read(
        self, tokens: list[int], begin: int, span: int
    ) -> Generator[tuple[int, npt.NDArray[np.float32]], None, None]:
        """The logits after each of `tokens` from `begin` on, few at a time, since they are as wide as the vocabulary:
        the first one's position, and (k, vocab_size) float32. A pass of its own, to be gone through at once and closed.

        Raises as `logits`.
        """
        size, n = self.pool.size, len(tokens)
        needed = -(-n // size)
        if needed > self.pool.available:
            raise ValueError(
                f"{n} tokens need {needed} blocks of memory, but the texts being written leave {self.pool.available}; "
                f"ask again when some have ended"
            )
        if self.states is not None and self.states.available < 2:
            raise ValueError(
                "the texts being written leave no memory for another's states; ask again when some have ended"
            )
        blocks, fresh = [self.pool.take() for _ in range(needed)], list(self.pool.fresh)
        read, write = (None, None) if self.states is None else (self.states.take(), self.states.take())
        try:
            for first in range(0, n, size):
                end = min(n, first + size)
                wanted = range(max(first, begin), end)
                self.runner.run(
                    Batch(
                        tokens=tokens[first:end],
                        positions=list(range(first, end)),
                        starts=[0, end - first],
                        blocks=blocks,
                        block_starts=[0, needed],
                        logit_rows=[position - first for position in wanted],
                        fresh=fresh,
                        spans=[span] if span else [],
                        reads=[] if read is None else [read if first else -1],
                        writes=[] if write is None else [write],
                    )
                )
                fresh = []
                self.pool.fresh.clear()
                read, write = write, read
                if wanted:
                    yield wanted.start, self.runner.logits()
        finally:
            for block in reversed(blocks):
                self.pool.drop(block)
            for place in (read, write):
                if self.states is not None and place is not None:
                    self.states.drop(place)

    def check(self) -> None:
        """Raise EngineError, with a sentence, unless everything that should hold between two steps does."""
        self.scheduler.check()
        served = {*self.scheduler.running, *self.scheduler.waiting}
        if served != {one for sequences in self.live.values() for one in sequences}:
            raise EngineError("the sequences that are served are not those of the requests that are here")
        for request_id, sequences in self.live.items():
            samples = [sample for one in sequences for sample in one.samples]
            if any(not one.samples or one.request.id != request_id for one in sequences) or len(set(samples)) < len(
                samples
            ):
                raise EngineError(f"request {request_id} has sequences for the samples {samples}")
        if not self.deadlines.keys() <= self.live.keys():
            raise EngineError(f"there are deadlines of {list(self.deadlines)}, but only {list(self.live)} are here")


def edits_of(sequence: Sequence, count: int) -> list[Seq[Edit]] | None:
    """What changes the rows of a sequence before they are drawn from, one list a draw; none where nothing does.

    None if only its processor knows, which is called once the rows are there. What it raises here it raises then too,
    where that ends its request.
    """
    processor = sequence.request.processor
    if processor is None:
        return []
    if not hasattr(processor, "edits"):
        return None
    editor = cast(Editor, processor)
    text = sequence.tokens + sequence.draft if sequence.draft else sequence.tokens
    rows, found = decided(sequence, count), []
    for sample in sequence.samples if rows else ():
        for position in rows:
            try:
                edits = editor.edits(text if position + 1 == len(text) else text[: position + 1], sample)
            except Exception:
                log.debug("%s: its processor failed", sequence.name, exc_info=True)
                return None
            if edits is None:
                return None
            found.append(edits)
    return found


def gather(work: Work, fresh: list[int], edits: Edits) -> tuple[Batch, Draws]:
    """The lists of one step: nothing to keep in order between steps."""
    tokens: list[int] = []
    positions: list[int] = []
    starts, block_starts = [0], [0]
    blocks: list[int] = []
    logit_rows: list[int] = []
    spans: list[int] = []
    reads: list[int] = []
    writes: list[int] = []
    draws = Draws()
    for sequence, count in work:
        first, last = sequence.stored, sequence.stored + count
        tokens += sequence.tokens[first:last]
        tokens += sequence.draft
        positions += range(first, last)
        blocks += sequence.blocks
        spans.append(sequence.request.span)
        if sequence.written is not None:
            reads.append(-1 if sequence.state is None else sequence.state)
            writes.append(sequence.written)
        rows = decided(sequence, count)
        if sequence in edits:
            wish(draws, sequence, len(logit_rows), rows, edits[sequence])
        logit_rows += [starts[-1] + position - first for position in rows]
        starts.append(len(tokens))
        block_starts.append(len(blocks))
    if not any(spans):
        spans = []
    return Batch(tokens, positions, starts, blocks, block_starts, logit_rows, fresh, spans, reads, writes), draws


def decided(sequence: Sequence, count: int) -> range:
    """The positions, among the next `count`, whose rows say what follows the text or a guess."""
    first = sequence.stored
    return range(max(first, len(sequence.tokens) - 1), first + count)


def wish(draws: Draws, sequence: Sequence, row: int, positions: range, edits: Seq[Seq[Edit]] = ()) -> None:
    """Add the draws of each sample of a sequence, from rows that are numbered from `row`.

    edits  of each draw, or none
    """
    request, each = sequence.request, iter(edits)
    for sample in sequence.samples if positions else ():
        for i, position in enumerate(positions):
            draws.add(row + i, request.seeds[sample], position + 1, request.params, next(each, ()))


def checked(processed: npt.NDArray[np.float32], logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """What a processor made of a row, if it can be drawn from. Raises ValueError, with a sentence, otherwise."""
    processed = np.asarray(processed, np.float32)
    if processed.shape != logits.shape:
        raise ValueError(f"a processor made {processed.shape} of a row of shape {logits.shape}; the shape must stay")
    if np.isnan(largest := processed.max()):
        raise ValueError("a processor made a logit nan: nothing can be drawn from such a row")
    if largest == -math.inf:
        raise ValueError("the processors leave no token: every logit is -inf; allow at least one")
    return processed


def cut(sequence: Sequence, new: list[int]) -> tuple[list[int], Finish | None]:
    """New tokens up to where the text ends, and why it does if it does."""
    left, stop_tokens = sequence.left, sequence.request.stop_tokens
    new = new[:left]
    for i, token in enumerate(new, 1):
        if token in stop_tokens:
            return new[:i], Finish(FinishReason.STOP, token)
    return new, Finish(FinishReason.LENGTH) if len(new) == left else None


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


def failure(error: BaseException) -> Finish:
    """The finish of a request that an exception ended."""
    said = isinstance(error, (EngineError, ValueError)) and str(error)
    sentence = str(error) if said else f"{type(error).__name__}: {error}"
    return Finish(FinishReason.ERROR, sentence)
