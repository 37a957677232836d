"""Vocabulary and chat template from the settings of a GGUF file."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from quickbrown.text.lists import LetterLists, Lists, Merges, merges_of
from quickbrown.text.sentences import Sentences
from quickbrown.text.tokenizer import BYTE_OF, Tokenizer
from quickbrown.text.words import REFUSED, WORDS, Added
from quickbrown.weights.source import bad_file
from quickbrown.weights.strings import Index, Strings

if TYPE_CHECKING:
    import tokenizers

    from quickbrown.text.template import ChatTemplate

_ENDS = frozenset({
    "</s>", "<eos>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "[e~[", "<turn|>", "<end_of_turn>", "<end_of_utterance>",
    "<|im_end|>", "<|end|>", "<|endoftext|>", "<|end_of_text|>", "<|eot_id|>", "<|eom_id|>", "<|return|>", "<|call|>",
    "<|calls|>", "<|flush|>", "<|tool_response>", "<\uff5cend\u2581of\u2581sentence\uff5c>",
})  # fmt: skip
# Of texts that end some models' texts, one does not where the others are there too.
_NO_ENDS = {
    "<|end|>": (("<|return|>", "<|call|>"), ("<|calls|>", "<|flush|>")),  # between the parts of a reply
    "</s>": (("<|tool_response>",),),
}
_END_KEYS = (
    "eos_token_id", "eot_token_id", "eom_token_id",  # of a document, a turn, a message
    "fim_pad_token_id", "fim_rep_token_id", "fim_sep_token_id",  # of what was missing, a repository, a file
)  # fmt: skip
_NAMES = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "sep_token": "seperator_token_id",  # spelt so in the format
    "pad_token": "padding_token_id",
    "cls_token": "cls_token_id",
    "mask_token": "mask_token_id",
}
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED = 1, 2, 3, 4
_AT = "tokenizer.ggml."
_IN_PIECES = ("gemma4", "sarvam-moe")  # ways to cut a text that are none: ▁ stands for a blank, and merges are listed
_STRIPPING = ("phi-3", "phi3")  # models whose control tokens take line ends along; their files do not say so
_OTHER_MODELS = {
    "bert": "WordPiece, which is for models that write no text",
    "rwkv": "that of RWKV",
    "plamo2": "that of PLaMo 2",
    "hybriddna": "one of nucleotides",
    "whitespace": "one of whole words",
    "no_vocab": "none",
    "none": "none",
}


def tokenizer_from_gguf(metadata: Mapping[str, Any], where: object, *, lazy: bool = False) -> Tokenizer:
    """The tokenizer that `GgufSource.metadata` describes; `where` is the file's name, for errors.

    lazy  check the vocabulary now, and build it when somebody asks for it (`Tokenizer.raw`)

    Raises BadFile, with one sentence, for a vocabulary that is damaged or of a kind that is not supported.
    """
    return _Reader(metadata, where).tokenizer(lazy)


def template_from_gguf(metadata: Mapping[str, Any], tokenizer: Tokenizer, where: object) -> ChatTemplate | None:
    """The chat template in `GgufSource.metadata`, if there is one. Raises BadFile for one that cannot be used."""
    return _Reader(metadata, where).template(tokenizer)


def templates_from_gguf(metadata: Mapping[str, Any], where: object) -> dict[str, str]:
    """The source of each chat template in `GgufSource.metadata` by its name. Raises BadFile."""
    return _Reader(metadata, where).templates()


def named_from_gguf(metadata: Mapping[str, Any], tokenizer: Tokenizer, where: object) -> dict[str, str]:
    """The texts of the special tokens that `GgufSource.metadata` names, as `bos_token`. Raises BadFile."""
    reader = _Reader(metadata, where)
    ids = {name: reader.token(key, tokenizer.vocab_size) for name, key in _NAMES.items()}
    return {name: str(tokenizer.token(i)) for name, i in ids.items() if i is not None}


class _Reader:
    def __init__(self, metadata: Mapping[str, Any], where: object) -> None:
        self.metadata = metadata
        self.where = where

    def bad(self, what: str) -> NoReturn:
        raise bad_file(self.where, what)

    def setting(self, key: str, kind: type, meaning: str, default: Any = None) -> Any:
        """A setting of exactly this type, or the default where it is missing."""
        value = self.metadata.get(_AT + key, default)
        if value is not None and type(value) is not kind:
            self.bad(f"the setting {_AT + key!r} must be {meaning}")
        return value

    def flag(self, key: str, default: bool) -> bool:
        return bool(self.setting(key, bool, "true or false", default))

    def token(self, key: str, count: int) -> int | None:
        value: int | None = self.setting(key, int, "a whole number")
        if value is not None and not 0 <= value < count:
            self.bad(f"the setting {_AT + key!r} is {value}, and there are {count} tokens")
        return value

    def strings(self, key: str) -> Strings:
        value: Strings | None = self.setting(key, Strings, "a list of texts")
        if value is None:
            self.bad(f"the setting {_AT + key!r} is missing")
        return value

    def kinds(self, count: int) -> np.ndarray[Any, Any]:
        """The kind of each token; all normal, where the file does not say."""
        key = _AT + "token_type"
        value = self.metadata.get(key)
        if value is None:
            return np.ones(count, np.int32)
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "iu":
            self.bad(f"the setting {key!r} must be a list of whole numbers")
        if len(value) != count:
            self.bad(f"the setting {key!r} has {len(value)} entries, and there are {count} tokens")
        return value

    def floats(self, key: str, count: int) -> np.ndarray[Any, Any]:
        """A finite number for each token."""
        value = self.metadata.get(_AT + key)
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu":
            self.bad(f"the setting {_AT + key!r} must be a list of numbers")
        if len(value) != count:
            self.bad(f"the setting {_AT + key!r} has {len(value)} entries, and there are {count} tokens")
        if not np.isfinite(value).all():
            self.bad(f"the setting {_AT + key!r} holds what is no number")
        return value

    def tokenizer(self, lazy: bool) -> Tokenizer:
        model, pre = self.setting("model", str, "a text"), self.setting("pre", str, "a text")
        if model is None:
            self.bad("it has no vocabulary: the setting 'tokenizer.ggml.model' is missing")
        if model not in ("gpt2", "llama", "t5", "gemma4"):
            what = f", {_OTHER_MODELS[model]}" if model in _OTHER_MODELS else ""
            self.bad(f"its vocabulary is of kind {model!r}{what}; supported are 'gpt2', 'llama', 't5' and 'gemma4'")
        for key in ("add_eos_token", "add_sep_token"):
            if self.flag(key, model == "t5" and key == "add_eos_token"):
                self.bad(f"wants a token behind every text ({_AT + key!r}), and such a text cannot be gone on from")
        if model == "gpt2" and pre not in _IN_PIECES:
            return self.letters(pre, lazy)
        return self.pieces(model if model != "gpt2" else "gemma4", lazy)

    def index(self) -> Index:
        try:
            return Index(self.strings("tokens"))
        except ValueError as error:
            self.bad(f"its vocabulary {error}")

    def merges(self, index: Index) -> Merges:
        try:
            return merges_of(index, self.strings("merges"))
        except ValueError as error:
            self.bad(str(error))

    def letters(self, pre: str | None, lazy: bool) -> Tokenizer:
        """The byte-level vocabulary."""
        if pre in REFUSED:
            self.bad(f"cuts text into words in the way {pre!r} ('tokenizer.ggml.pre'), which is not supported: "
                     f"{REFUSED[pre]}")  # fmt: skip
        if pre not in WORDS:
            from difflib import get_close_matches

            near = "" if pre is None else "".join(f"; {name!r} is near" for name in get_close_matches(pre, WORDS, 1))
            named = "does not say how it" if pre is None else f"names the way {pre!r} that it"
            self.bad(f"{named} cuts text into words ('tokenizer.ggml.pre'); {len(WORDS)} ways are supported{near}")
        if self.flag("add_space_prefix", False):
            self.bad(f"needs {_AT + 'add_space_prefix'!r}, which is not supported")
        words = WORDS[pre]
        index = self.index()
        merges = self.merges(index)
        added, ids = self.added(index, self.kinds(len(index.tokens)))
        lists = LetterLists(index, merges, words.ignore_merges, partial(words.dressed, added), ids)
        lazy = lazy and not ids.keys() & BYTE_OF.keys()  # `Lists.bytes` has both
        return self.made(lists.bytes if lazy else lists.whole(), index, lists if lazy else None, words.begins)

    def pieces(self, model: str, lazy: bool) -> Tokenizer:
        """The vocabulary of the SentencePiece kind."""
        for key in ("remove_extra_whitespaces", "treat_whitespace_as_suffix"):
            if model != "t5" and self.flag(key, False):
                self.bad(f"needs {_AT + key!r}, which is not supported")
        index = self.index()
        count = len(index.tokens)
        kinds = self.kinds(count)
        unknown = self.token("unknown_token_id", count)
        if unknown is None and model != "gemma4":
            unknown = {"llama": 0, "t5": 2}[model] if count > 2 else None
        model_of = Sentences(
            index,
            kinds=kinds,
            unknown=unknown,
            scores=None if model == "gemma4" else self.floats("scores", count),
            merges=self.merges(index) if model == "gemma4" else None,
            unigram=model == "t5",
            prefix=self.flag("add_space_prefix", model != "gemma4"),
            squeeze=self.flag("remove_extra_whitespaces", False),
            charsmap=self.charsmap() if model == "t5" else b"",
            strip=model == "llama" and any(name in self.name() for name in _STRIPPING),
        )
        try:
            raw, unbuilt = model_of.built(lazy)
        except ValueError as error:
            self.bad(str(error))
        return self.made(raw, index, unbuilt, model != "t5", (1, 2) if model == "llama" else (None, None))

    def name(self) -> str:
        """The model's own name, in small letters."""
        name = self.metadata.get("general.name")
        return name.lower() if isinstance(name, str) else ""

    def charsmap(self) -> bytes:
        key = _AT + "precompiled_charsmap"
        value = self.metadata.get(key)
        if value is None:
            return b""
        if not isinstance(value, np.ndarray) or value.dtype.itemsize != 1:
            self.bad(f"the setting {key!r} must be a list of bytes")
        return value.tobytes()

    def added(self, index: Index, kinds: np.ndarray[Any, Any]) -> tuple[Added, dict[str, int]]:
        """The tokens that are whole in any text, by whether they mark structure; the id of each."""
        by_kind = {kind: np.flatnonzero(kinds == kind) for kind in (_CONTROL, _USER_DEFINED)}
        added = {kind == _CONTROL: index.tokens.take(which) for kind, which in by_kind.items()}
        ids = np.concatenate(list(by_kind.values()))
        return added, dict(zip(index.tokens.take(ids), ids.tolist(), strict=True))

    def made(
        self,
        raw: tokenizers.Tokenizer,
        index: Index,
        unbuilt: Lists | None,
        begins: bool,
        usual: tuple[int | None, int | None] = (None, None),
    ) -> Tokenizer:
        """The tokenizer, with its beginning and ends; `usual` are those of its kind, for a file that names none."""
        count = len(index.tokens)
        added = raw.get_added_tokens_decoder()
        ends = {token.content: i for i, token in added.items() if token.content in _ENDS}
        for text, others in _NO_ENDS.items():
            if any(all(other in ends for other in several) for several in others):
                ends.pop(text, None)
        bos, eos = (i if i is not None and i < count else None for i in usual)
        ids = {*ends.values(), *(i for key in _END_KEYS if (i := self.token(key, count)) is not None)}
        if self.token("eos_token_id", count) is None and eos is not None:
            ids.add(eos)
        if not ids:
            self.bad("names no token that ends a text ('tokenizer.ggml.eos_token_id')")
        named = self.token("bos_token_id", count)
        bos = bos if named is None else named
        add_bos = self.flag("add_bos_token", begins)
        if add_bos and bos is None:
            self.bad("wants a token that begins a text and does not name it ('tokenizer.ggml.bos_token_id')")
        return Tokenizer(raw, eos_ids=ids, bos_id=bos, add_bos=add_bos, vocab_size=count, unbuilt=unbuilt)

    def templates(self) -> dict[str, str]:
        key = "tokenizer.chat_template"
        found = {"default": self.metadata[key]} if key in self.metadata else {}
        found |= {at[len(key) + 1 :]: source for at, source in self.metadata.items() if at.startswith(f"{key}.")}
        for name, source in found.items():
            if type(source) is not str:
                self.bad(f"the setting {key if name == 'default' else f'{key}.{name}'!r} must be a text")
        return found

    def template(self, tokenizer: Tokenizer) -> ChatTemplate | None:
        source = self.templates().get("default")
        if source is None:
            return None
        from quickbrown.text.template import ChatTemplate, TemplateError

        eos = self.token("eos_token_id", tokenizer.vocab_size)
        texts = [None if i is None else tokenizer.token(i) for i in (tokenizer.bos_id, eos)]
        try:
            return ChatTemplate(source, *texts)
        except TemplateError as error:
            self.bad(f"its chat template cannot be used: {str(error).rstrip('.')}")
