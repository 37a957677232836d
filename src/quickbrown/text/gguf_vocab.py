"""Vocabulary and chat template from the settings of a GGUF file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from quickbrown.text.lists import Lists, merges_of
from quickbrown.text.tokenizer import BYTE_OF, Tokenizer
from quickbrown.weights.source import bad_file
from quickbrown.weights.strings import Index, Strings

if TYPE_CHECKING:
    import tokenizers

    from quickbrown.text.template import ChatTemplate

_ENDS = frozenset({"<|im_end|>", "<|endoftext|>", "<|eot_id|>", "</s>"})
_END_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")
_NAMES = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "sep_token": "seperator_token_id",  # spelt so in the format
    "pad_token": "padding_token_id",
    "cls_token": "cls_token_id",
    "mask_token": "mask_token_id",
}
_CONTROL, _USER_DEFINED = 3, 4
_AT = "tokenizer.ggml."

_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _gpt2(raw: tokenizers.Tokenizer) -> None:
    from tokenizers import pre_tokenizers as pre

    raw.pre_tokenizer = pre.ByteLevel(add_prefix_space=False, use_regex=True)


def _smollm(raw: tokenizers.Tokenizer) -> None:
    from tokenizers import pre_tokenizers as pre

    words = pre.ByteLevel(add_prefix_space=False, use_regex=True)
    raw.pre_tokenizer = pre.Sequence([pre.Digits(individual_digits=True), words])


def _split(raw: tokenizers.Tokenizer, digits: str) -> None:
    from tokenizers import Regex
    from tokenizers import pre_tokenizers as pre

    words = pre.Split(Regex(_WORDS.replace("DIGITS", digits)), "isolated")
    raw.pre_tokenizer = pre.Sequence([words, pre.ByteLevel(add_prefix_space=False, use_regex=False)])


def _llama3(raw: tokenizers.Tokenizer) -> None:
    _split(raw, r"\p{N}{1,3}")


def _qwen2(raw: tokenizers.Tokenizer) -> None:
    from tokenizers import normalizers

    raw.normalizer = normalizers.NFC()
    _split(raw, r"\p{N}")


_LLAMA3 = ("llama-bpe", "llama3", "llama-v3")
_PRE: dict[str, Callable[[tokenizers.Tokenizer], None]] = {
    "default": _gpt2,
    "gpt-2": _gpt2,
    "smollm": _smollm,
    "qwen2": _qwen2,
    **dict.fromkeys(_LLAMA3, _llama3),
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


def _dressed(pre: str, added: dict[bool, list[str]], model: tokenizers.models.BPE) -> tokenizers.Tokenizer:
    """A model with a way to cut text, and tokens that are whole in any text, by whether they mark structure."""
    import tokenizers
    from tokenizers import AddedToken, decoders

    raw = tokenizers.Tokenizer(model)
    raw.decoder = decoders.ByteLevel()
    _PRE[pre](raw)
    for special, texts in added.items():
        tokens = [AddedToken(text, special=special, normalized=False) for text in texts]
        (raw.add_special_tokens if special else raw.add_tokens)(tokens)
    return raw


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

    def tokenizer(self, lazy: bool) -> Tokenizer:
        model = self.setting("model", str, "a text")
        if model is None:
            self.bad("it has no vocabulary: the setting 'tokenizer.ggml.model' is missing")
        if model == "llama":
            self.bad("its vocabulary is SentencePiece ('llama'), which is not supported yet; 'gpt2' is")
        if model != "gpt2":
            self.bad(f"its vocabulary is of kind {model!r}; the supported one is 'gpt2'")
        pre = self.setting("pre", str, "a text")
        if pre not in _PRE:
            known = ", ".join(_PRE)
            named = "does not say how it" if pre is None else f"names the way {pre!r} that it"
            self.bad(f"{named} cuts text into words ('tokenizer.ggml.pre'); supported are {known}")
        for key in ("add_eos_token", "add_space_prefix"):
            if self.flag(key, False):
                self.bad(f"needs {_AT + key!r}, which is not supported")

        tokens, listed = self.strings("tokens"), self.strings("merges")
        try:
            index = Index(tokens)
        except ValueError as error:
            self.bad(f"its vocabulary {error}")
        try:
            merges = merges_of(index, listed)
        except ValueError as error:
            self.bad(str(error))
        kinds = self.kinds(len(tokens))
        by_kind = {kind: np.flatnonzero(kinds == kind) for kind in (_CONTROL, _USER_DEFINED)}
        special = np.concatenate(list(by_kind.values()))
        added = {kind == _CONTROL: tokens.take(which) for kind, which in by_kind.items()}
        lists = Lists(index, merges, pre in _LLAMA3, partial(_dressed, pre, added), special.tolist())
        ends = {i for i, text in zip(special.tolist(), tokens.take(special), strict=True) if text in _ENDS}
        ends |= {i for key in _END_KEYS if (i := self.token(key, len(tokens))) is not None}
        if not ends:
            self.bad("names no token that ends a text ('tokenizer.ggml.eos_token_id')")
        bos = self.token("bos_token_id", len(tokens))
        add_bos = self.flag("add_bos_token", pre in _LLAMA3)
        if add_bos and bos is None:
            self.bad("wants a token that begins a text and does not name it ('tokenizer.ggml.bos_token_id')")
        lazy = lazy and not any(text in BYTE_OF for texts in added.values() for text in texts)  # `Lists.bytes` has both
        return Tokenizer(
            lists.bytes if lazy else lists.whole(),
            eos_ids=ends,
            bos_id=bos,
            add_bos=add_bos,
            vocab_size=len(tokens),
            unbuilt=lists if lazy else None,
        )

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
