"""Prompt lookup: what followed earlier in a text is guessed to follow again.

Saxena, "Prompt Lookup Decoding" (2023). A guess is kept exactly when it is the token that is drawn, so that the text is
that of plain decoding, token for token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from quickbrown.generation.decoders.sample import Sample, Written

LONGEST = 3  # tokens of an n-gram, unless somebody says
SURE = 8  # tokens that were the same before a guess: more say no more of it
REMEMBERED = 32  # guesses, of those behind as many tokens that were the same

Ends = dict[tuple[int, ...], int]  # an n-gram -> the place of what followed it last


class Worth(Protocol):
    """Says how many guesses are worth running; `generation/gain.py` has one."""

    def guesses(self, chances: Sequence[float], states: bool = False) -> int: ...


class Lookup(Sample):
    """Writes one request, and guesses its texts from what they have already.

    most     guesses a step
    longest  tokens of the n-grams that are looked up, longest first
    worth    says how many are worth it; None: all, always
    """

    def __init__(self, most: int, longest: int = LONGEST, worth: Worth | None = None) -> None:
        self.most, self.longest, self.worth = most, longest, worth
        self.prompt: Ends | None = None
        self.texts: dict[int, Foresight] = {}  # by sample

    def propose(self, sequences: Sequence[Written]) -> list[list[int]]:
        return [self.guess(sequence) for sequence in sequences]

    def guess(self, sequence: Written) -> list[int]:
        """What may follow one text, as far as running it is worth it."""
        request, [sample] = sequence.request, sequence.samples
        if request.processor is not None and not hasattr(request.processor, "edits"):
            return []  # a caller's own function is asked about the text alone, not about what it might become
        if self.prompt is None:
            self.prompt = read(request.prompt[:-1], self.longest)
        text = self.texts.get(sample)
        if text is None or not text.begins(sequence.tokens):
            self.texts[sample] = text = Foresight(self.prompt, request.prompt, self.longest)
        text.follow(sequence.tokens)
        most = min(self.most, sequence.left - 1)
        if text.next is None or most < 1:
            return []
        if self.worth is not None:
            most = self.worth.guesses(text.chances(most), sequence.state is not None)
        return text.guesses(sequence.tokens, most)


def read(tokens: Sequence[int], longest: int) -> Ends:
    """Each n-gram of up to so many tokens, and where what followed it last stands."""
    ends: Ends = {}
    for size in range(1, longest + 1):
        grams = zip(*(tokens[i:] for i in range(size)), strict=False)
        ends.update(zip(grams, range(size, len(tokens) + 1), strict=False))
    return ends


class Foresight:
    """What the past of a text says of its next tokens.

    It follows a place earlier in the text for as long as the same comes there, and then looks for another. How often
    that told the next token is counted at every token, whether or not guesses were run: so it is known what guesses are
    worth before any has cost something.

    ends    of n-grams of the prompt but its last token
    next    the place whose token is expected next; None if nothing is
    same    how many tokens before that place are those that the text ends with, as far as known and at most SURE
    chance  by `same`: that what is expected comes
    """

    def __init__(self, ends: Ends, prompt: Sequence[int], longest: int) -> None:
        self.ends, self.longest = ends, longest
        self.own: Ends = {}  # of n-grams that end behind those
        self.next: int | None = None
        self.same = 0
        # By `same`: how many tokens were expected, and how many came. It begins as if four had been, and with nothing
        # of what came in other texts: one that copies says too much good of the next (docs/journal.md).
        self.expected = [4.0] * (SURE + 1)
        self.came = [4 * same / (same + 4) for same in range(SURE + 1)]
        self.chance = [came / 4 for came in self.came]
        self.known = len(prompt) - 1  # how many tokens it has followed, ...
        self.tail = tuple(prompt[max(0, self.known - longest) : self.known])  # ... the last of them

    def begins(self, tokens: Sequence[int]) -> bool:
        """Whether a text is the one that it has followed, or goes on from there."""
        return tuple(tokens[self.known - len(self.tail) : self.known]) == self.tail

    def follow(self, tokens: Sequence[int]) -> None:
        """Go on with a text to its end."""
        for at in range(self.known, len(tokens)):
            token = tokens[at]
            if self.next is not None:
                came = tokens[self.next] == token
                self.count(came)
                self.next = self.next + 1 if came else None
                self.same = min(SURE, self.same + 1)
            self.tail = tail = (*self.tail, token)[-self.longest :]
            grams = [tail[i:] for i in range(len(tail))]  # the longest first
            if self.next is None:
                self.find(grams)
            for gram in grams:
                self.own[gram] = at + 1
        self.known = len(tokens)

    def find(self, grams: Sequence[tuple[int, ...]]) -> None:
        """Follow the last place behind the first of some n-grams that has one."""
        for gram in grams:
            if found := self.own.get(gram) or self.ends.get(gram):
                self.next, self.same = found, len(gram)
                return

    def count(self, came: bool) -> None:
        """Remember whether what was expected came."""
        same = self.same
        if self.expected[same] >= REMEMBERED:
            self.expected[same] /= 2
            self.came[same] /= 2
        self.expected[same] += 1
        self.came[same] += came
        self.chance[same] = self.came[same] / self.expected[same]

    def guesses(self, tokens: Sequence[int], most: int) -> list[int]:
        """Up to so many tokens that are expected to follow a text. Where they reach its end, they go on in a circle."""
        if self.next is None or most < 1:
            return []
        guesses = list(tokens[self.next : self.next + most])
        circle = len(tokens) - self.next
        while len(guesses) < most:
            guesses.append(guesses[-circle])
        return guesses

    def chances(self, count: int) -> list[float]:
        """That each of so many guesses comes true, if those before it do."""
        rising = self.chance[self.same : self.same + count]
        return rising + self.chance[-1:] * (count - len(rising))
