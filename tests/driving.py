"""Driving an engine by chance, and the plainest loop that every text is compared with."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from quickbrown.backends.fake import FakeRunner
from quickbrown.backends.sampling import draw, edited
from quickbrown.engine.batch import NO_DRAWS
from quickbrown.engine.engine import Engine
from quickbrown.engine.sequence import Request
from quickbrown.engine.sequence import Sequence as Written
from quickbrown.generation.decoders.lookup import Lookup
from quickbrown.generation.decoders.sample import Sample
from quickbrown.types import Edit, EditKind, Event, Finish, FinishReason, SamplingParams

VOCAB = 13
LENGTH = Finish(FinishReason.LENGTH)
CANCELLED = Finish(FinishReason.CANCELLED)
TIME = Finish(FinishReason.TIME)
BROKEN = Finish(FinishReason.ERROR, "LookupError: no idea")
POISONED = Finish(FinishReason.ERROR, "this cannot be swallowed")

Answer = Callable[[list[int]], np.ndarray]  # the logits after a text; its `draw`, if it has one, draws from the last


def fake_answer(tokens: list[int]) -> np.ndarray:
    return FakeRunner(vocab_size=VOCAB, blocks=1, block_size=1).answer(tokens)


def plain(request: Request, sample: int = 0, answer: Answer = fake_answer) -> tuple[list[int], Finish]:
    """The text that a sample of a request must get: no cache, no batch, no engine."""
    p, tokens = request.params, list(request.prompt)
    f32 = [float(np.float32(x)) for x in (p.temperature, p.top_p, p.min_p)]
    choose = getattr(answer, "draw", draw)
    new: list[int] = []
    while len(new) < p.max_new_tokens:
        row = answer([*tokens, *new])
        if request.processor is not None:
            row = request.processor([*tokens, *new], sample, row)
        new.append(choose(row, f32[0], p.top_k, f32[1], f32[2], request.seeds[sample], len(tokens) + len(new)))
        if new[-1] in request.stop_tokens:
            return new, Finish(FinishReason.STOP, new[-1])
    return new, LENGTH


class Ban:
    """A processor that leaves three tokens, other ones at each position and for each sample."""

    def __call__(self, tokens, sample, logits):
        left = [(len(tokens) + sample + i) % len(logits) for i in range(3)]
        row = np.full_like(logits, -np.inf)
        row[left] = logits[left] / 2
        return row


class Said:
    """A processor that leaves three tokens, said in edits; `called` counts how often it was called all the same.

    silent  at which lengths of text it says nothing
    """

    def __init__(self, silent=()):
        self.silent, self.called = silent, 0

    def __call__(self, tokens, sample, logits):
        self.called += 1
        return edited(logits, self.said(tokens, sample))

    def edits(self, tokens, sample):
        return None if len(tokens) in self.silent else self.said(tokens, sample)

    def said(self, tokens, sample):
        left = sum(1 << (len(tokens) + sample + i) % VOCAB for i in range(3))
        seen = np.array(sorted(set(tokens)), np.int32)
        return [
            Edit(EditKind.ONLY, np.int32([left]), np.empty(0, np.float32)),
            Edit(EditKind.SCALE, seen, np.float32([1.5])),
        ]


class Guess(Sample):
    """Guesses with the plain loop, and spoils every guess at a position that `wrong` divides (0: none)."""

    def __init__(self, width, wrong, answer: Answer = fake_answer, vocab: int = VOCAB):
        self.width, self.wrong, self.answer, self.vocab = width, wrong, answer, vocab

    def propose(self, sequences):
        return [self.guess(sequence) for sequence in sequences]

    def guess(self, sequence):
        request = replace(sequence.request, prompt=tuple(sequence.tokens), stop_tokens=frozenset())
        request = replace(request, params=replace(request.params, max_new_tokens=self.width))
        tokens, _ = plain(request, sequence.samples[0], self.answer)
        at = range(len(sequence.tokens), len(sequence.tokens) + self.width)
        return [(t + (self.wrong > 0 and p % self.wrong == 0)) % self.vocab for p, t in zip(at, tokens, strict=True)]

    def accept(self, sequences, rows):
        for sequence, its_rows in zip(sequences, rows, strict=True):
            assert len(its_rows) == len(sequence.draft) + 1
        return super().accept(sequences, rows)


class Failing(Sample):
    """Raises in accept when the text has reached `length` tokens."""

    def __init__(self, length):
        self.length = length

    def accept(self, sequences, rows):
        if len(sequences[0].tokens) >= self.length:
            raise LookupError("no idea")
        return super().accept(sequences, rows)


class Watched(FakeRunner):
    """Counts calls and tokens. Raises in those calls of `run` that `failing` names, and whenever a text begins with
    `poison`."""

    def __init__(self, failing=(), poison=None, **options):
        super().__init__(vocab_size=VOCAB, **options)
        self.failing, self.poison = failing, poison
        self.runs, self.samples, self.copied, self.poisoned, self.sizes = 0, 0, 0, 0, []

    def run(self, batch, draws=NO_DRAWS):
        self.runs += 1
        self.sizes.append(len(batch.tokens))
        if self.runs in self.failing:
            raise OSError("out of order")
        drawn = super().run(batch, draws)
        if self.poison is not None:
            firsts = [batch.blocks[start] for start in batch.block_starts[:-1]]
            if (self.slots[firsts, 0] == self.poison).any():
                self.poisoned += 1
                raise ValueError("this cannot be swallowed")
        return drawn

    def sample(self, draws):
        self.samples += 1
        return super().sample(draws)

    def copy(self, source, target):
        self.copied += 1
        super().copy(source, target)


@dataclass
class Told:
    """What the events of one sample say."""

    tokens: list[int] = field(default_factory=list)
    finish: Finish | None = None
    reused: int = 0


class Watch:
    """Steps an engine and checks every rule after each step; adds the events up, by request and sample."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.told: dict[tuple[int, int], Told] = {}
        self.preempted: list[Written] = []  # in this step
        preempt = engine.scheduler.preempt

        def watched() -> Written:
            self.preempted.append(preempt())
            return self.preempted[-1]

        engine.scheduler.preempt = watched  # type: ignore[method-assign]

    @property
    def texts(self) -> dict[int, tuple[list[int], Finish | None]]:
        """What the first sample of each request was told."""
        return {id: (text.tokens, text.finish) for (id, sample), text in self.told.items() if sample == 0}

    def step(self) -> list[Event]:
        engine = self.engine
        running = {s: (s.stored, len(s.tokens)) for s in engine.scheduler.running}
        sizes = getattr(engine.runner, "sizes", [])
        before = len(sizes)
        self.preempted.clear()
        events = engine.step()
        engine.check()
        assert all(size <= engine.budget for size in sizes[before:])
        for sequence in engine.scheduler.running:
            if sequence in running and sequence not in self.preempted:  # else it may be back where it was
                assert (sequence.stored, len(sequence.tokens)) != running[sequence]
        assert len({(event.request, event.sample) for event in events}) == len(events)
        for event in events:
            text = self.told.setdefault((event.request, event.sample), Told())
            assert text.finish is None, "an event after the last one"
            assert event.tokens or event.finish
            assert all(type(token) is int for token in event.tokens)
            text.tokens += event.tokens
            text.finish = event.finish
            text.reused = event.reused
        return events

    def finish(self, most: int = 3000) -> dict[tuple[int, int], Told]:
        """Step to the end; memory must be whole then."""
        for _ in range(most):
            if self.engine.idle:
                break
            self.step()
        assert self.engine.idle, "the engine does not come to an end"
        assert self.engine.pool.available == len(self.engine.pool.holders), "blocks are lost"
        if self.engine.states is not None:
            assert self.engine.states.available == len(self.engine.states.holders), "places for states are lost"
        assert self.engine.step() == []
        return self.told


def judge(request: Request, told: dict[tuple[int, int], Told], answer: Answer = fake_answer, poison=None) -> None:
    """Assert that each sample of a request got the text of the plainest loop, or an honest reason and its beginning."""
    length = request.decoder.length if isinstance(request.decoder, Failing) else 1 << 30
    texts = [plain(request, sample, answer) for sample in range(len(request.seeds))]
    breaks = any(len(request.prompt) + len(tokens) > length for tokens, _ in texts)
    for sample, (tokens, finish) in enumerate(texts):
        text = told[request.id, sample]
        assert text.tokens == tokens[: len(text.tokens)], f"request {request.id} went another way"
        if text.finish == BROKEN:
            assert breaks
            assert len(text.tokens) <= max(0, length - len(request.prompt))
        elif text.finish == POISONED:
            assert request.prompt[0] == poison
            assert not text.tokens
        elif text.finish not in (CANCELLED, TIME):
            assert request.prompt[0] != poison
            assert (text.tokens, text.finish) == (tokens, finish)
            assert len(request.prompt) + len(tokens) <= length


def ask(id=0, prompt=(1, 2, 3), decoder=None, seed=0, stop_tokens=(), **params) -> Request:
    """A request; `seed` may be several, one a sample."""
    params = SamplingParams(**{"max_new_tokens": 8, **params})
    seeds = (seed,) if isinstance(seed, int) else tuple(seed)
    return Request(id, tuple(prompt), decoder or Sample(), params, seeds, frozenset(stop_tokens))


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def drive(
    dice: random.Random,
    count: int,
    runner,
    *,
    answer: Answer = fake_answer,
    vocab: int = VOCAB,
    longest_prompt: int = 40,
    longest_text: int = 12,
    budgets: Sequence[int] = (1, 2, 3, 8, 24, 64, 512),
    poison: int | None = None,
) -> dict[str, int]:
    """Write `count` random requests with one engine: they come and go at random, share beginnings, are cancelled, run
    out of time or break. Every text is judged, every rule checked after every step. Returns what was seen how often.
    """
    size, blocks = runner.block_size, runner.room()
    clock = Clock()
    engine = Engine(runner, dice.choice(budgets), clock)
    watch = Watch(engine)
    beginnings = [[dice.randrange(vocab) for _ in range(longest_prompt)] for _ in range(4)]
    waiting: dict[int, Request] = {}  # by id: not ended as far as we were told
    seen = dict.fromkeys(("steps", "forks", "preempted", "reused", "cancelled", "time", "error", "stop", "length"), 0)
    asked = 0
    while waiting or asked < count:
        if asked < count and dice.random() < 0.4:
            for _ in range(dice.choice([1, 1, 2, 5])):
                begin = dice.choice(beginnings)[: dice.randrange(longest_prompt)]
                prompt = [*begin, *(dice.randrange(vocab) for _ in range(dice.randrange(1, longest_prompt // 4)))]
                new = dice.randrange(1, longest_text + 1)
                prompt = prompt[: blocks * size - new]
                if poison is not None and dice.random() < 0.1:
                    prompt[0] = poison
                decoder = Sample()
                if dice.random() < 0.1:
                    decoder = Failing(dice.randrange(1, longest_prompt))
                elif dice.random() < 0.1:
                    decoder = Guess(dice.randrange(1, 5), dice.randrange(4), answer, vocab)
                elif dice.random() < 0.2:
                    decoder = Lookup(dice.randrange(1, 5), dice.randrange(1, 4))
                params = SamplingParams(
                    max_new_tokens=new,
                    temperature=dice.choice([0.0, 0.7, 1.0, 2.0]),
                    top_k=dice.choice([0, 0, 1, 5]),
                    top_p=dice.choice([1.0, 0.9, 0.5]),
                    min_p=dice.choice([0.0, 0.1]),
                    logprobs=dice.random() < 0.3,
                    max_time=dice.choice([None, None, None, None, 5.0, 30.0]),
                )
                seeds = tuple(dice.getrandbits(64) for _ in range(dice.choice([1, 1, 1, 2, 4])))
                stops = frozenset(dice.sample(range(vocab), dice.choice([0, 1, 2])))
                # a native draw is judged by the row it is made from, which only the plain texts have
                processor = Ban() if not hasattr(answer, "draw") and dice.random() < 0.2 else None
                request = Request(asked, tuple(prompt), decoder, params, seeds, stops, processor)
                engine.add(request)
                waiting[request.id] = request
                seen["forks"] += len(seeds) - 1
                asked += 1
        if waiting and dice.random() < 0.03:
            victim = dice.choice(list(waiting.values()))
            engine.cancel(victim.id, dice.choice([None, dice.randrange(len(victim.seeds))]))
            engine.check()
        clock.now += dice.random()
        before = set(engine.scheduler.running)
        watch.step()
        seen["steps"] += 1
        seen["preempted"] += sum(s in before for s in engine.scheduler.waiting)
        for id, request in list(waiting.items()):
            texts = [watch.told.get((id, sample)) for sample in range(len(request.seeds))]
            if all(text and text.finish for text in texts):
                judge(request, watch.told, answer, poison)
                for sample, text in enumerate(texts):
                    seen["reused"] += text.reused
                    seen[text.finish.reason.value] += 1
                    del watch.told[id, sample]
                del waiting[id]
    watch.finish()
    return seen
