"""A vocabulary as files list it, which reads texts before the library's own form of it has been made."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from quickbrown.text.tokenizer import BLANK, LETTERS, without_special
from quickbrown.weights.strings import Ids, Index, Strings, same

if TYPE_CHECKING:
    import tokenizers

_LETTERS = dict(enumerate(LETTERS[byte] for byte in range(256)))
BYTE_TOKENS = tuple(f"<0x{byte:02X}>" for byte in range(256))
_KEPT_WORDS = 1 << 15
_KEPT_BYTES = 64  # of a word
_PIECE = 1 << 15  # merges that are checked together: what is noted of them stays in the processor's cache
_PLACES = 8  # parts of words to look up, for each token of the vocabulary

Pairs = list[tuple[str, str]]
Dress = Callable[["tokenizers.models.BPE"], "tokenizers.Tokenizer"]


class Merges(NamedTuple):
    """(n,) each: the tokens that are merged, those that go first, and what they make."""

    left: Ids
    right: Ids
    made: Ids


class Lists:
    """A vocabulary of which nothing has been built: an `Unbuilt` (text/tokenizer.py).

    The library takes 1 to 4 microseconds a token to build it, holding the GIL: a second at 262k. What it makes of a
    text, however, it makes of one word after the other, and of a word only with the tokens that are parts of it. So a
    text is cut into words by the library itself, with a vocabulary of bytes and nothing else, and new words are merged
    by the library too, with a vocabulary of their parts. The rest is looking up which tokens are parts of a word.

    10 kB of English take 11 ms so, 5 where the words have been met, and 3 with the whole. That is nothing beside what
    the model does with them, so the whole is not built for being faster, which would stop every other thread once.

    index   the tokens
    dress   adds everything else to a model: how a text is cut, and the tokens that are whole in any text
    added   the ids of those; some may be no tokens of the index, and then their ids are behind it
    size    ids are below this
    """

    names: tuple[str, ...]  # of the 256 bytes, as the library has them

    def __init__(self, index: Index, dress: Dress, added: Mapping[str, int]) -> None:
        self.tokens, self.index, self.dress = index.tokens, index, dress
        self.size = max([len(index.tokens), *(i + 1 for i in added.values())])
        self.beyond = {i: text for text, i in added.items() if i >= len(index.tokens)}
        self.bytes = self._bytes(added)
        self.words: dict[bytes, list[int]] = {}  # what some words were found to be
        self.longest = np.zeros(256, np.int64)  # bytes of the longest token that begins with a byte
        first = np.frombuffer(self.tokens.data, np.uint8)[self.tokens.begins]
        np.maximum.at(self.longest, first, self.tokens.sizes)

    @abstractmethod
    def _model(self, ids: dict[str, int], merges: Pairs) -> tokenizers.models.BPE:
        """The library's form of some tokens."""

    @abstractmethod
    def _merges(self, parts: npt.NDArray[np.bool_] | None) -> Merges:
        """The merges that make some of the tokens, (tokens,) bool, in their order; all merges for None."""

    @abstractmethod
    def _spell(self, words: set[bytes]) -> tuple[dict[bytes, str], list[str]]:
        """Each word as the library reads it, and what else may be merged of one."""

    def token(self, token: int) -> str | None:
        return self.tokens[token] if 0 <= token < len(self.tokens) else self.beyond.get(token)

    def whole(self) -> tokenizers.Tokenizer:
        tokens = list(self.tokens)
        merges = self._merges(None)
        pairs = zip(merges.left.tolist(), merges.right.tolist(), strict=True)
        named = [(tokens[left], tokens[right]) for left, right in pairs]
        return self.dress(self._model(dict(zip(tokens, range(len(tokens)), strict=True)), named))

    def read(self, text: str, special: bool) -> list[int] | None:
        cut = (self.bytes if special else self._plain).encode(text, add_special_tokens=False)
        ids, words = np.array(cut.ids, np.int64), np.array(cut.word_ids, np.int64)
        if not len(ids):
            return []
        data = (ids - self.size).astype(np.uint8).tobytes()
        starts = np.flatnonzero(np.diff(words, prepend=-1))
        ends = [*starts[1:].tolist(), len(data)]
        firsts = ids[starts].tolist()  # an added token is a word of its own
        listed = [data[begin:end] for begin, end in zip(starts.tolist(), ends, strict=True)]
        found = self._read_words({word for word, first in zip(listed, firsts, strict=True) if first >= self.size})
        if found is None:
            return None
        read: list[int] = []
        for word, first in zip(listed, firsts, strict=True):
            read += found[word] if first >= self.size else [first]
        return read

    def _read_words(self, words: set[bytes]) -> dict[bytes, list[int]] | None:
        """The tokens of each word; None where finding them takes longer than building the whole."""
        known = self.words
        found = {word: tokens for word in words if (tokens := known.get(word)) is not None}
        new, left = self._spell(words - found.keys())
        if not new:
            return found
        parts = self._parts(Strings.of([*new.values(), *left]))
        if parts is None:
            return None
        merges = self._merges(parts)
        ids = np.flatnonzero(parts)
        names = dict(zip(ids.tolist(), self.tokens.take(ids), strict=True))
        pairs = zip(merges.left.tolist(), merges.right.tolist(), strict=True)
        model = self._model({name: i for i, name in names.items()}, [(names[a], names[b]) for a, b in pairs])
        fresh = {word: [token.id for token in model.tokenize(letters)] for word, letters in new.items()}
        if len(known) > _KEPT_WORDS:
            self.words = known = {}
        known |= {word: tokens for word, tokens in fresh.items() if len(word) <= _KEPT_BYTES}
        return found | fresh

    def _parts(self, words: Strings) -> npt.NDArray[np.bool_] | None:
        """(tokens,): whether each is a part of one of the words, which lie in a row; None for too many parts."""
        data = np.frombuffer(words.data, np.uint8, int(words.sizes.sum()))
        at = np.arange(len(data))
        room = np.minimum(np.repeat(words.begins + words.sizes, words.sizes) - at, self.longest[data])
        total = int(room.sum())
        if total > _PLACES * len(self.tokens):
            return None
        begins = np.repeat(at, room)
        sizes = np.arange(1, total + 1) - np.repeat(np.cumsum(room) - room, room)
        found = self.index.find(Strings(words.data, begins, sizes))
        parts = np.zeros(len(self.tokens), np.bool_)
        parts[found[found >= 0]] = True
        return parts

    def _bytes(self, added: Mapping[str, int]) -> tokenizers.Tokenizer:
        """Cuts a text into words, and those into bytes: byte b is token `size` + b."""
        from tokenizers import models

        names = {name: self.size + byte for byte, name in enumerate(self.names)}
        return self.dress(models.BPE({**names, **added}, [], byte_fallback=self.names is BYTE_TOKENS))

    @cached_property
    def _plain(self) -> tokenizers.Tokenizer:
        """`bytes`, to which special tokens are plain text."""
        return without_special(self.bytes)


class LetterLists(Lists):
    """A byte-level vocabulary, in which a letter stands for each byte.

    merges         as `merges_of` gives them
    ignore_merges  whether a word that is a token is that token, whatever the merges say
    """

    names = tuple(_LETTERS.values())

    def __init__(
        self, index: Index, merges: Merges, ignore_merges: bool, dress: Dress, added: Mapping[str, int]
    ) -> None:
        super().__init__(index, dress, added)
        self.merges, self.ignore_merges = merges, ignore_merges
        letters = index.find(Strings.of(self.names)).tolist()
        self.missing = {ord(_LETTERS[byte]): None for byte, token in enumerate(letters) if token < 0}

    def _model(self, ids: dict[str, int], merges: Pairs) -> tokenizers.models.BPE:
        from tokenizers import models

        return models.BPE(ids, merges, ignore_merges=self.ignore_merges)

    def _merges(self, parts: npt.NDArray[np.bool_] | None) -> Merges:
        return self.merges if parts is None else _making(self.merges, parts)

    def _spell(self, words: set[bytes]) -> tuple[dict[bytes, str], list[str]]:
        new = {word: word.decode("latin-1").translate(_LETTERS) for word in words}
        # A byte that is no token is left out, and what stood around it may be merged.
        return new, [bare for letters in new.values() if (bare := letters.translate(self.missing)) != letters]


class PieceLists(Lists):
    """A vocabulary of the SentencePiece kind, in which ▁ stands for a blank.

    merges   as `merges_of` gives them; None for any two tokens that make one, those first that make one of the highest
             score (Sennrich et al. 2016, as SentencePiece has it)
    scores   (tokens,) float, read where `merges` is None
    normal   (tokens,) bool: which tokens texts are merged into
    unknown  the id of the token for what no other can write; `byte_fallback` goes before it
    fuse     whether it is written once for several such characters
    byte_fallback  whether a character that is no token is written in its bytes, each a token
    """

    names = BYTE_TOKENS

    def __init__(
        self,
        index: Index,
        dress: Dress,
        added: Mapping[str, int],
        *,
        normal: npt.NDArray[np.bool_],
        unknown: int | None,
        fuse: bool = True,
        byte_fallback: bool,
        merges: Merges | None = None,
        scores: npt.NDArray[np.floating] | None = None,
    ) -> None:
        super().__init__(index, dress, added)
        self.merges, self.scores, self.normal = merges, scores, normal
        self.unknown = None if unknown is None else self.tokens[unknown]
        self.fuse, self.byte_fallback = fuse, byte_fallback
        kept = [] if unknown is None else [unknown]
        if byte_fallback:
            kept += index.find(Strings.of(BYTE_TOKENS)).tolist()
        self.kept = np.array(kept, np.int64)

    def _model(self, ids: dict[str, int], merges: Pairs) -> tokenizers.models.BPE:
        from tokenizers import models

        return models.BPE(ids, merges, unk_token=self.unknown, fuse_unk=self.fuse, byte_fallback=self.byte_fallback)

    def _merges(self, parts: npt.NDArray[np.bool_] | None) -> Merges:
        if self.merges is not None:
            return self.merges if parts is None else _making(self.merges, parts)
        assert self.scores is not None
        return merges_by_score(self.index, self.normal if parts is None else parts, self.normal, self.scores)

    def _spell(self, words: set[bytes]) -> tuple[dict[bytes, str], list[str]]:
        return {word: word.decode() for word in words}, []

    def _parts(self, words: Strings) -> npt.NDArray[np.bool_] | None:
        parts = super()._parts(words)
        if parts is not None:
            parts &= self.normal
            parts[self.kept] = True
        return parts


def begins_words(tokens: Strings) -> bool:
    """Whether ▁ stands in no token behind anything but ▁, so that a text may be cut before each run of them."""
    if not len(tokens):
        return True
    data = np.frombuffer(tokens.data, np.uint8)
    one, two, three = BLANK.encode()
    at = np.flatnonzero((data[:-2] == one) & (data[1:-1] == two) & (data[2:] == three))
    at = at[np.diff(at, prepend=-3) != 3]  # those that follow no other
    order = np.argsort(tokens.begins)
    token = order[np.maximum(np.searchsorted(tokens.begins, at, "right", sorter=order) - 1, 0)]
    begins = tokens.begins[token]
    return not ((at > begins) & (at < begins + tokens.sizes[token])).any()


def merges_by_score(
    index: Index, made: npt.NDArray[np.bool_], normal: npt.NDArray[np.bool_], scores: npt.NDArray[np.floating]
) -> Merges:
    """Every two normal tokens that make one of `made`, a normal one: by the score of that, the highest first, and of
    one score those with the longest first token."""
    which = np.flatnonzero(made & normal)
    tokens = index.tokens.part(which)
    inner = np.arange(int(tokens.sizes.sum())) - np.repeat(np.cumsum(tokens.sizes) - tokens.sizes, tokens.sizes)
    owner = np.repeat(np.arange(len(which)), tokens.sizes)
    data = np.frombuffer(tokens.data, np.uint8)
    between = np.flatnonzero((inner > 0) & (data[tokens.begins[owner] + inner] & 0xC0 != 0x80))  # two characters
    owner, inner = owner[between], inner[between]
    left = index.find(Strings(tokens.data, tokens.begins[owner], inner))
    good = np.flatnonzero((left >= 0) & normal[left])
    owner, inner, left = owner[good], inner[good], left[good]
    right = index.find(Strings(tokens.data, tokens.begins[owner] + inner, tokens.sizes[owner] - inner))
    good = np.flatnonzero((right >= 0) & normal[right])
    owner, inner, left, right = owner[good], inner[good], left[good], right[good]
    order = np.lexsort((-inner, -scores[which[owner]]))
    return Merges(left[order], right[order], which[owner][order].astype(np.int32))


def _making(merges: Merges, parts: npt.NDArray[np.bool_]) -> Merges:
    which = np.flatnonzero(parts[merges.made])
    return Merges(merges.left[which], merges.right[which], merges.made[which])


def merges_of(index: Index, listed: Strings) -> Merges:
    """The merges that are listed, in order, as two tokens with a space between them.

    Raises ValueError for one that is not, or that makes no token.
    """
    return _joined(_split_merges(index, listed, at) for at in range(0, len(listed), _PIECE))


def merges_of_pairs(index: Index, listed: Strings) -> Merges:
    """The merges that are listed, in order: every two texts are one, and lie together.

    Raises ValueError for one whose texts are no tokens, or that makes no token.
    """

    def piece(at: int) -> Merges:
        left, right = (listed.part(slice(at + side, at + 2 * _PIECE, 2)) for side in (0, 1))
        return _looked_up(
            index, at // 2, left, right, lambda: Strings(left.data, left.begins, left.sizes + right.sizes)
        )

    return _joined(piece(at) for at in range(0, len(listed), 2 * _PIECE))


def _joined(parts: Iterable[Merges]) -> Merges:
    nothing = np.empty(0, np.int32)
    return Merges(*map(np.concatenate, zip((nothing, nothing, nothing), *parts, strict=True)))


def _split_merges(index: Index, all_listed: Strings, at: int) -> Merges:
    listed = all_listed.part(slice(at, at + _PIECE))
    begins, ends = listed.begins, listed.begins + listed.sizes
    data = np.frombuffer(listed.data, np.uint8)[begins[0] : ends[-1]]
    spaces = np.flatnonzero(data == ord(" ")) + begins[0]
    if len(spaces) != len(listed) or (spaces < begins).any() or (spaces >= ends).any():
        at += int((np.searchsorted(spaces, ends) - np.searchsorted(spaces, begins) != 1).argmax())
        raise ValueError(f"merge {at} of its vocabulary is not two tokens with a space between them")
    left = Strings(listed.data, begins, spaces - begins)
    right = Strings(listed.data, spaces + 1, ends - spaces - 1)

    def joined() -> Strings:
        bare = np.delete(data, spaces - begins[0]).tobytes() + bytes(8)
        return Strings(bare, begins - begins[0] - np.arange(len(listed)), listed.sizes - 1)

    return _looked_up(index, at, left, right, joined)


def _looked_up(index: Index, at: int, left: Strings, right: Strings, joined: Callable[[], Strings]) -> Merges:
    """The merges from number `at` on, each of two texts, which `joined` has as one."""
    lefts, rights = index.find(left), index.find(right)
    made = _in_order(index, left, right)
    if made is None:
        made = index.find(joined())
    wrong = (lefts < 0) | (rights < 0) | (made < 0)
    if wrong.any():
        first = int(wrong.argmax())
        text = f"{left[first]} {right[first]}"
        raise ValueError(f"its merges do not fit its tokens: of {text!r} (merge {at + first}), one is missing")
    return Merges(lefts, rights, made)


def _in_order(index: Index, left: Strings, right: Strings) -> Ids | None:
    """What merges make, where that is tokens in the order of the merges, which it nearly always is."""
    first = int(index.find(Strings.of([left[0] + right[0]]))[0])
    if not 0 <= first <= len(index.tokens) - len(left):
        return None
    made = np.arange(first, first + len(left), dtype=np.int32)
    tokens = index.tokens.part(made)
    if (tokens.sizes != left.sizes + right.sizes).any():
        return None
    rest = Strings(tokens.data, tokens.begins + left.sizes, right.sizes)
    return made if (same(left, tokens) & same(right, rest)).all() else None
