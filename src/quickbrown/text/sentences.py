"""Vocabularies of the SentencePiece kind (Kudo & Richardson 2018): texts as one sentence, in which ▁ is a blank.

Their tokens are found by merging (`tokenizer.ggml.model` 'llama', and 'gemma4' with listed merges), or as the most
probable ones (unigram, 't5').
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from quickbrown.text.lists import BYTE_TOKENS, Merges, PieceLists, begins_words
from quickbrown.text.tokenizer import BLANK, of_library
from quickbrown.text.words import Added, add_tokens
from quickbrown.weights.strings import Index, Strings

if TYPE_CHECKING:
    import tokenizers

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # kinds of tokens, as in SentencePiece's format
UNSTRIPPED = frozenset({"<unk>", "<s>", "<|endoftext|>"})
WORD = f"{BLANK}+[^{BLANK}]*|[^{BLANK}]+"


class Sentences:
    """A vocabulary, and what is done to a text before it is looked up.

    index     the tokens
    kinds     (tokens,) the kind of each
    unknown   the id of the token for what no other can write
    scores    (tokens,) the score of each; None where merges are listed
    merges    the merges, where they are listed
    unigram   take the tokens whose scores' sum is highest, and do not merge
    prefix    begin a text with a blank, and so what follows a token that is whole in any text
    once      but not what follows one
    squeeze   make one blank of several, and none at the ends of a text
    charsmap  SentencePiece's table of what characters are replaced by, or nothing
    strip     whether control tokens take blanks and line ends behind them along, but for `UNSTRIPPED`
    """

    def __init__(
        self,
        index: Index,
        *,
        kinds: npt.NDArray[Any],
        unknown: int | None,
        scores: npt.NDArray[Any] | None = None,
        merges: Merges | None = None,
        unigram: bool = False,
        prefix: bool = True,
        once: bool = False,
        squeeze: bool = False,
        charsmap: bytes = b"",
        strip: bool = False,
    ) -> None:
        self.index, self.unknown, self.scores, self.merges = index, unknown, scores, merges
        self.unigram, self.prefix, self.once = unigram, prefix, once
        self.squeeze, self.charsmap = squeeze, charsmap
        special = (kinds == CONTROL) | (kinds == UNKNOWN)
        if unknown is not None:
            special[unknown] = True
        which = {True: np.flatnonzero(special), False: np.flatnonzero((kinds == USER_DEFINED) & ~special)}
        self.added: Added = {marks: index.tokens.take(ids) for marks, ids in which.items()}
        ids = np.concatenate(list(which.values()))
        self.added_ids: dict[str, int] = dict(zip(index.tokens.take(ids), ids.tolist(), strict=True))
        self.normal: npt.NDArray[np.bool_] = (kinds == NORMAL) & ~special
        self.strip = frozenset(self.added[True]) - UNSTRIPPED if strip else frozenset()
        self.byte_fallback = bool((index.find(Strings.of(BYTE_TOKENS)) >= 0).all())
        self.cut = not unigram and begins_words(index.tokens.part(np.flatnonzero(self.normal)))

    def built(self, lazy: bool) -> tuple[tokenizers.Tokenizer, PieceLists | None]:
        """The library's form, or, where it can wait (`lazy`), what reads texts meanwhile and a form that cuts them.

        Raises ValueError for a vocabulary that it cannot be made of.
        """
        if self.unknown is None and (self.unigram or not self.byte_fallback):
            raise ValueError("its vocabulary has no token for what is unknown")
        try:
            return self._unigram() if self.unigram else self._merging(lazy)
        except BaseException as error:
            if not of_library(error):
                raise
            raise ValueError(f"its vocabulary cannot be used: {str(error).rstrip('.')}") from None

    def _unigram(self) -> tuple[tokenizers.Tokenizer, None]:
        from tokenizers import models

        assert self.scores is not None
        scored = list(zip(self.index.tokens, self.scores.tolist(), strict=True))
        return _dressed(self, models.Unigram(scored, self.unknown, self.byte_fallback)), None

    def _merging(self, lazy: bool) -> tuple[tokenizers.Tokenizer, PieceLists | None]:
        lists = PieceLists(
            self.index,
            partial(_dressed, self),
            self.added_ids,
            normal=self.normal,
            unknown=self.unknown,
            byte_fallback=self.byte_fallback,
            merges=self.merges,
            scores=self.scores,
        )
        alone = any(len(text) == 1 for text in self.added[True]) or BLANK in self.added[False]
        if not lazy or alone or self.added_ids.keys() & set(BYTE_TOKENS):
            return lists.whole(), None  # `Lists.bytes` would take a character for the token of that name
        return lists.bytes, lists


def _dressed(sentences: Sentences, model: tokenizers.models.Model) -> tokenizers.Tokenizer:
    """A model with what is done to a text before it is looked up, and tokens that are whole in any text."""
    import tokenizers
    from tokenizers import Regex, decoders, normalizers, pre_tokenizers

    raw = tokenizers.Tokenizer(model)
    steps: list[Any] = [normalizers.Precompiled(sentences.charsmap)] if sentences.charsmap else []
    if sentences.squeeze:
        steps += [normalizers.Replace(Regex(r"\A +| +\z"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    if sentences.prefix and not sentences.once:
        steps.append(normalizers.Prepend(BLANK))
    raw.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", BLANK)])
    cuts: list[Any] = []
    if sentences.prefix and sentences.once:
        cuts.append(pre_tokenizers.Metaspace(BLANK, prepend_scheme="first", split=False))
    if sentences.cut:
        cuts.append(pre_tokenizers.Split(Regex(WORD), "isolated"))
    if cuts:
        raw.pre_tokenizer = pre_tokenizers.Sequence(cuts)
    decoded = [decoders.Replace(BLANK, " "), decoders.ByteFallback(), decoders.Fuse()]
    raw.decoder = decoders.Sequence([*decoded, decoders.Strip(" ", 1, 0)] if sentences.prefix else decoded)
    add_tokens(raw, sentences.added, sentences.strip)
    return raw
