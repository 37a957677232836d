"""tokenizer.json of which the tokens and merges stay lists: the library makes an object of each, of the rest a few."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from quickbrown import _native
from quickbrown.text.lists import (
    BYTE_TOKENS,
    Dress,
    LetterLists,
    Lists,
    Merges,
    PieceLists,
    begins_words,
    merges_of_pairs,
)
from quickbrown.text.sentences import WORD
from quickbrown.text.tokenizer import BLANK, BYTE_OF, of_library
from quickbrown.weights.source import parse_json
from quickbrown.weights.strings import Ids, Index, Places, Strings

if TYPE_CHECKING:
    import tokenizers

_CUTTERS = frozenset({"ByteLevel", "Digits", "Punctuation", "Split"})  # they only cut what is letters for bytes
_PIECES = frozenset({"Metaspace", "Prepend", "Replace", "Split"})  # they put in nothing but what they name
_NOT_READ = ("dropout", "continuing_subword_prefix", "end_of_word_suffix")


@dataclass(frozen=True, slots=True)
class TokenizerJson:
    """A byte-pair vocabulary, checked, and not built.

    shell   everything else in the file, as the library has it, around a model without tokens
    model   the settings of its model
    index   the tokens; their ids are their places
    merges  in their order
    """

    shell: tokenizers.Tokenizer
    model: dict[str, Any]
    index: Index
    merges: Merges

    def lists(self, more: list[tokenizers.AddedToken]) -> Lists | None:
        """What reads texts as the library does with all of it; None for what would be read in another way.

        more  tokens that are whole in any text and are not in the file
        """
        added = [token for _, token in sorted(self.shell.get_added_tokens_decoder().items())] + more
        known = self.index.find(Strings.of([token.content for token in added])).tolist()
        new = count(len(self.index.tokens))
        ids = {token.content: i if i >= 0 else next(new) for token, i in zip(added, known, strict=True)}
        dress = partial(_dressed, self.shell, added)
        kinds = [step["type"] for step in _steps(self.shell.pre_tokenizer)]
        if "ByteLevel" not in kinds:
            return self._pieces(dress, ids) if self._apart(added) else None
        if not _CUTTERS.issuperset(kinds[kinds.index("ByteLevel") :]) or ids.keys() & BYTE_OF.keys():
            return None
        lists = LetterLists(self.index, self.merges, self.model["ignore_merges"], dress, ids)
        # Bytes without a token are left out, unless the model has something else for them; `first_token` reads an "a".
        other = self.model["unk_token"] is not None or self.model["byte_fallback"] or ord("a") in lists.missing
        return None if lists.missing and other else lists

    def _apart(self, added: list[tokenizers.AddedToken]) -> bool:
        """Whether no character of a word could be taken for an added token (by `Lists.bytes`)."""
        if any(token.content in BYTE_TOKENS for token in added):
            return False
        alone = [token for token in added if len(token.content) == 1]
        if any(token.special or token.normalized or token.single_word for token in alone):
            return False  # in some texts it stays a character
        steps = _steps(self.shell.normalizer) + _steps(self.shell.pre_tokenizer)
        put = "".join(step.get(name) or "" for step in steps for name in ("content", "prepend", "replacement"))
        known = _PIECES.issuperset(step["type"] for step in steps)
        return not alone or (known and not any(token.content in put for token in alone))

    def _pieces(self, dress: Dress, ids: dict[str, int]) -> PieceLists | None:
        tokens, model = self.index.tokens, self.model
        unknown, byte_fallback = self._id(model["unk_token"]), model["byte_fallback"]
        if byte_fallback and (self.index.find(Strings.of(BYTE_TOKENS)) < 0).any():
            return None
        if model["ignore_merges"] or (unknown is None and not byte_fallback):
            return None  # a word may be all of a text; what is left out lets its neighbours be merged
        lists = PieceLists(
            self.index,
            dress,
            ids,
            normal=np.ones(len(tokens), np.bool_),
            unknown=unknown,
            fuse=model["fuse_unk"],
            byte_fallback=byte_fallback,
            merges=self.merges,
        )
        merged, made = np.zeros((2, len(tokens)), np.bool_)
        merged[self.merges.left] = merged[self.merges.right] = made[self.merges.made] = True
        if merged[lists.kept].any():
            return None  # what stands for a character makes tokens that are no part of its word
        if self._id(BLANK) is not None and begins_words(tokens.part(np.flatnonzero(made))):
            _cut_words(lists.bytes)
        return lists

    def _id(self, text: str | None) -> int | None:
        found = -1 if text is None else int(self.index.find(Strings.of([text]))[0])
        return None if found < 0 else found


def read_tokenizer_json(data: bytes) -> TokenizerJson | None:
    """None for a file of another kind, or that is damaged: the library says what is wrong with it."""
    try:
        at = _place(data, b"vocab", b"{")
        texts, sizes, ids, behind = _native.read_tokens(data, at)
        merges_at = _place(data, b"merges", b"[", behind)
        parts, part_sizes, _, end = _native.read_merges(data, merges_at)
        pieces = data[:at], data[behind:merges_at], data[end:]
        model = parse_json(b"null".join(pieces), "tokenizer.json").get("model")
        # Both lists were the model's where something else in their places is.
        if not isinstance(model, dict) or not {"vocab": None, "merges": None}.items() <= model.items():
            return None
        if model.get("type") != "BPE" or any(map(model.get, _NOT_READ)):
            return None
        if data.find(b"#version", merges_at, end) >= 0:  # the library makes no merge of that
            return None
        index = Index(_by_id(_strings(texts, sizes), ids))
        merges = merges_of_pairs(index, _strings(parts, part_sizes))
    except ValueError:  # BadFile among them
        return None
    import tokenizers

    try:
        shell = tokenizers.Tokenizer.from_buffer(pieces[0] + b"{}" + pieces[1] + b"[]" + pieces[2])
    except BaseException as error:
        if not of_library(error):
            raise
        return None
    return TokenizerJson(shell, json.loads(shell.model.__getstate__()), index, merges)


def _place(data: bytes, name: bytes, first: bytes, at: int = 0) -> int:
    """Where the value of a name begins that begins with this character. Raises ValueError."""
    named, value = b'"' + name + b'"', re.compile(rb"\s*:\s*(?=" + re.escape(first) + rb")")
    while (at := data.find(named, at)) >= 0:
        at += len(named)
        if found := value.match(data, at):
            return found.end()
    raise ValueError(f"there is no {name.decode()!r}")


def _strings(texts: bytes, sizes: Places) -> Strings:
    """Texts that lie end to end. Raises ValueError for those that are no UTF-8."""
    begins = np.cumsum(sizes) - sizes
    str(texts, "utf-8")
    if (np.frombuffer(texts, np.uint8)[begins] & 0xC0 == 0x80).any():
        raise ValueError("a text begins within a character")
    return Strings(texts, begins, sizes)


def _by_id(tokens: Strings, ids: Ids) -> Strings:
    """The tokens in the order of their ids. Raises ValueError where those are not 0 to n - 1."""
    places: npt.NDArray[np.int64] = np.full(len(ids), -1)
    if len(ids) and int(ids.max()) < len(ids):
        places[ids] = np.arange(len(ids))
    if (places < 0).any():
        raise ValueError("some ids are no token's")
    return tokens.part(places)


def _steps(part: Any) -> list[dict[str, Any]]:
    """The steps of a normalizer or a pre-tokenizer, as tokenizer.json lists them."""
    if part is None:
        return []
    return _flat(json.loads(part.__getstate__()))


def _flat(step: dict[str, Any]) -> list[dict[str, Any]]:
    inner = step.get("normalizers") or step.get("pretokenizers") or []
    return [each for part in inner for each in _flat(part)] if step["type"] == "Sequence" else [step]


def _cut_words(raw: tokenizers.Tokenizer) -> None:
    """Have it cut texts before each run of ▁ too."""
    from tokenizers import Regex, pre_tokenizers

    cut = pre_tokenizers.Split(Regex(WORD), "isolated")
    own = raw.pre_tokenizer
    raw.pre_tokenizer = cut if own is None else pre_tokenizers.Sequence([own, cut])


def _dressed(
    shell: tokenizers.Tokenizer, added: list[tokenizers.AddedToken], model: tokenizers.models.Model
) -> tokenizers.Tokenizer:
    """A model with all that the shell has around its own, and tokens that are whole in any text."""
    raw = type(shell)(model)
    for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        if (value := getattr(shell, part)) is not None:
            setattr(raw, part, value)
    raw.add_tokens(added)
    return raw
