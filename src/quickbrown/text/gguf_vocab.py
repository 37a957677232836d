"""Vocabulary and chat template from the settings of a GGUF file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import numpy.typing as npt

from quickbrown.text.tokenizer import LETTERS, Tokenizer
from quickbrown.weights.source import bad_file

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
SHORT = 512  # bytes of a text, up to which its parts are looked up faster than the whole vocabulary is built

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

    lazy  check the vocabulary now, and build it when a first short text has been read (`Tokenizer.raw`)

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


class Lists:
    """A vocabulary as the file lists it: an `Unbuilt` (text/tokenizer.py).

    The library's own form of all of it takes longer to make than the file takes to read. What it makes of a text
    depends only on the tokens that are parts of the text, and on the merges that make those.

    added  the tokens that are whole in any text; whether they mark structure
    lazy   whether `around` is wanted
    made   which token each merge makes; None where it is not, or the merges do not fit, of which `whole` raises BadFile
    """

    def __init__(
        self,
        where: object,
        pre: str,
        tokens: list[str],
        ids: dict[str, int],
        merges: list[str],
        added: dict[int, bool],
        lazy: bool,
    ) -> None:
        self.where, self.pre, self.tokens, self.ids, self.merges, self.added = where, pre, tokens, ids, merges, added
        self.longest = max(map(len, tokens))
        self.made = _made(tokens, ids, merges) if lazy else None

    def token(self, token: int) -> str | None:
        return self.tokens[token] if 0 <= token < len(self.tokens) else None

    def whole(self) -> tokenizers.Tokenizer:
        return self._build(self.ids, self.merges)

    def around(self, text: str) -> tokenizers.Tokenizer | None:
        data = text.encode()
        if self.made is None or len(data) > SHORT or (self.pre == "qwen2" and not text.isascii()):
            return None  # what is normalized (NFC) may have other parts
        letters = "".join(map(LETTERS.__getitem__, data))
        if not set(letters) <= self.ids.keys():
            return None  # what is no token is left out, and what stood around it may be merged
        parts = {letters[i:j] for i in range(len(data)) for j in range(i + 1, min(i + self.longest, len(data)) + 1)}
        ids = {part: self.ids[part] for part in parts if part in self.ids}
        wanted = np.flatnonzero(np.isin(self.made, list(ids.values())))
        ids |= {self.tokens[i]: i for i in self.added}
        return self._build(ids, [self.merges[i] for i in wanted])

    def _build(self, ids: dict[str, int], listed: list[str]) -> tokenizers.Tokenizer:
        import tokenizers
        from tokenizers import AddedToken, decoders, models

        try:
            merges = [(left, right) for left, right in (merge.split(" ") for merge in listed)]
        except ValueError:
            at = next(i for i, merge in enumerate(listed) if merge.count(" ") != 1)
            raise bad_file(
                self.where, f"merge {at} of its vocabulary is not two tokens with a space between them"
            ) from None
        try:
            model = models.BPE(ids, merges, ignore_merges=self.pre in _LLAMA3)
        except Exception as error:  # the library raises plain Exception
            raise bad_file(self.where, f"its merges do not fit its tokens: {str(error).rstrip('.')}") from None
        raw = tokenizers.Tokenizer(model)
        raw.decoder = decoders.ByteLevel()
        _PRE[self.pre](raw)
        for add, special in ((raw.add_special_tokens, True), (raw.add_tokens, False)):
            texts = [self.tokens[i] for i, marks in self.added.items() if marks is special]
            add([AddedToken(text, special=special, normalized=False) for text in texts])
        if raw.get_vocab_size(with_added_tokens=True) != len(ids):
            raise bad_file(self.where, "its special tokens do not fit its vocabulary")
        return raw


def _made(tokens: list[str], ids: dict[str, int], merges: list[str]) -> npt.NDArray[np.int32] | None:
    """The token that each merge makes; None unless each is two tokens, with a space between, that together are one."""
    if not merges:
        return np.empty(0, np.int32)
    text = "\0".join(merges)
    letters = np.frombuffer(text.encode(), np.uint8)
    marks = letters[(letters == ord(" ")) | (letters == 0)]
    if len(marks) != 2 * len(merges) - 1 or (marks[::2] != ord(" ")).any():
        return None
    if not set(text.replace(" ", "\0").split("\0")) <= ids.keys():
        return None
    text = text.replace(" ", "")
    first = ids.get(text.partition("\0")[0], 0)
    if text == "\0".join(tokens[first : first + len(merges)]):  # nearly always: tokens in the order of their merges
        return np.arange(first, first + len(merges), dtype=np.int32)
    try:
        return np.fromiter(map(ids.__getitem__, text.split("\0")), np.int32, len(merges))
    except KeyError:
        return None


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

    def strings(self, key: str) -> list[str]:
        value: list[str] | None = self.setting(key, list, "a list of texts")
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

        tokens = self.strings("tokens")
        ids = self.ids(tokens)
        merges = self.strings("merges")
        kinds = self.kinds(len(tokens))
        added = {int(i): kind == _CONTROL for kind in (_CONTROL, _USER_DEFINED) for i in np.flatnonzero(kinds == kind)}
        lists = Lists(self.where, pre, tokens, ids, merges, added, lazy)
        special = added.keys()
        ends = {i for i in special if tokens[i] in _ENDS}
        ends |= {i for key in _END_KEYS if (i := self.token(key, len(tokens))) is not None}
        if not ends:
            self.bad("names no token that ends a text ('tokenizer.ggml.eos_token_id')")
        bos = self.token("bos_token_id", len(tokens))
        add_bos = self.flag("add_bos_token", pre in _LLAMA3)
        if add_bos and bos is None:
            self.bad("wants a token that begins a text and does not name it ('tokenizer.ggml.bos_token_id')")
        raw = lists.around("")
        return Tokenizer(
            lists.whole() if raw is None else raw,
            eos_ids=ends,
            bos_id=bos,
            add_bos=add_bos,
            vocab_size=len(tokens),
            unbuilt=None if raw is None else lists,
        )

    def ids(self, tokens: list[str]) -> dict[str, int]:
        ids = dict(zip(tokens, range(len(tokens)), strict=True))
        if len(ids) != len(tokens):
            twice = next(token for i, token in enumerate(tokens) if ids[token] != i)
            self.bad(f"its vocabulary has the token {twice!r} twice")
        if not tokens or "" in ids:
            self.bad("its vocabulary has an empty token" if tokens else "its vocabulary is empty")
        return ids

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
