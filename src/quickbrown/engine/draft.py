"""A second model that guesses how texts go on: all that ask together, one run a guess."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from quickbrown.engine.blocks import BlockPool
from quickbrown.engine.engine import agreement, decided, edits_of, gather
from quickbrown.engine.runner import Runner
from quickbrown.engine.scheduler import Scheduler
from quickbrown.engine.sequence import Sequence

log = logging.getLogger(__name__)

CATCHING_UP = 64  # tokens a step that texts may be behind and be caught up with, while others are asked about too


@dataclass(slots=True)
class Followed:
    """A text as the draft has it.

    its   its tokens, those guessed last too, in the draft's blocks
    sure  how many of them are the text's
    """

    its: Sequence
    sure: int


class Draft:
    """Guesses with a runner of its own, whose memory follows the texts: what was guessed wrong is written over.

    A guess is drawn as the text's own token will be, with the same parameters, edits, seed and position: where the two
    models' distributions are alike, so are their draws.

    runner   of a model with the same vocabulary, without states, which could not go back
    vocab    tokens that the texts' own model knows
    longest  tokens that a text may have
    span     a text's final length -> Request.span, as this model has it
    budget   most tokens a run
    """

    def __init__(
        self,
        runner: Runner,
        vocab: int,
        longest: int,
        span: Callable[[int], int] = lambda length: 0,
        budget: int = 512,
    ) -> None:
        if runner.states():
            raise ValueError(
                "a model with states cannot be a draft: it could not take a wrong guess back; "
                "take one that has keys and values only"
            )
        self.runner, self.longest, self.span, self.budget = runner, longest, span, budget
        self.vocab = min(vocab, runner.vocab_size)
        self.reset()

    def reset(self) -> None:
        """Follow nobody, and know nothing of what memory holds."""
        self.scheduler = Scheduler(BlockPool(self.runner.room(), self.runner.block_size), self.budget)
        self.followed: dict[Sequence, Followed] = {}  # the one asked about last is last
        self.orders = itertools.count()

    def behind(self, text: Sequence) -> int:
        """How many tokens of a text must be read before it can be guessed."""
        known = self.followed.get(text)
        last = len(text.tokens) - 1  # read again where all have been: its row is what a guess is drawn from
        return len(text.tokens) - (0 if known is None else min(known.its.stored, known.sure, last))

    def guess(self, texts: list[Sequence], counts: list[int]) -> list[list[int]]:
        """Up to so many tokens behind each text: fewer, or none, of one that is too long, or behind, or has no room.

        A failure costs the guesses only.
        """
        try:
            return self.run(texts, counts)
        except Exception:
            log.warning("the draft model failed; it starts anew", exc_info=True)
            self.reset()
            return [[] for _ in texts]

    def run(self, texts: list[Sequence], counts: list[int]) -> list[list[int]]:
        for ended in [one for one in self.followed if not one.samples]:
            self.forget(ended)
        guesses: dict[Sequence, list[int]] = {}  # by what the draft has of a text
        its = []
        for text, count in zip(texts, counts, strict=True):
            known = self.follow(text, texts) if count and len(text.tokens) + count <= self.longest else None
            its.append(known)
            if known is not None:
                guesses[known] = []
        wanted = {known: count for known, count in zip(its, counts, strict=True) if known is not None}
        budget = self.budget if len(texts) == 1 else len(texts) + CATCHING_UP
        while wanted:
            work = []
            for one in wanted:
                if budget and self.room(one, texts):
                    count = self.scheduler.grant(one, budget)
                    budget -= count
                    work.append((one, count))
            if not work:
                break
            self.step(work, guesses)
            wanted = {
                one: wanted[one]
                for one, _ in work
                if one.tokens[-1] < self.vocab and 0 < len(guesses[one]) < wanted[one]
            }
            budget = self.budget
        return [[] if known is None else guesses[known] for known in its]

    def step(self, work: list[tuple[Sequence, int]], guesses: dict[Sequence, list[int]]) -> None:
        """Run tokens of each, and note what is guessed behind those that are at their end."""
        pool = self.scheduler.pool
        edits = {one: edits_of(one, count) or [] for one, count in work}
        batch, draws = gather(work, list(pool.fresh), edits)
        while pool.copies:
            self.runner.copy(*pool.copies[0])
            del pool.copies[0]
        drawn = iter(self.runner.run(batch, draws))
        pool.fresh.clear()
        for one, count in work:
            at_end = bool(decided(one, count))
            self.scheduler.advance(one, count, count)
            if at_end:
                token, _ = next(drawn)
                one.tokens.append(token)
                if token < self.vocab:
                    guesses[one].append(token)

    def follow(self, text: Sequence, texts: list[Sequence]) -> Sequence | None:
        """What the draft has of a text, brought up to what that is now; None where it has no room.

        texts  of which none may be forgotten for it
        """
        known = self.followed.pop(text, None)
        if max(text.tokens[known.sure if known else 0 :], default=0) >= self.runner.vocab_size:
            return None
        if known is None:
            request = replace(
                text.request, span=self.span(len(text.request.prompt) + text.request.params.max_new_tokens)
            )
            known = Followed(Sequence(request, (next(self.orders), 0), list(text.tokens), text.samples), 0)
            while not self.scheduler.admit(known.its):
                if not self.make_room(texts):
                    return None
        else:
            same = known.sure + agreement(text.tokens[known.sure :], known.its.tokens[known.sure :])
            known.its.tokens[same:] = text.tokens[same:]
            known.its.stored = min(known.its.stored, same, len(text.tokens) - 1)
            self.scheduler.settle(known.its)
        known.sure = len(text.tokens)
        self.followed[text] = known
        return known.its

    def room(self, one: Sequence, texts: list[Sequence]) -> bool:
        """Whether a token more of a text can be stored, others being forgotten for it."""
        while not self.scheduler.space(one):
            if not self.make_room(texts):
                return False
        return True

    def make_room(self, texts: list[Sequence]) -> bool:
        """Forget the text that was asked about longest ago, but none of these. False if there is none."""
        for text in self.followed:
            if text not in texts:
                self.forget(text)
                return True
        return False

    def forget(self, text: Sequence) -> None:
        self.scheduler.release(self.followed.pop(text).its)
