"""PreTrainedTokenizer: texts to ids and back, with the names and the results of transformers."""

from __future__ import annotations

import inspect
import json
import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from quickbrown.hf.arrays import kind_of, to_numpy
from quickbrown.hf.batch_encoding import BatchEncoding
from quickbrown.hf.chat import ChatTemplates
from quickbrown.hf.encoding import NO_PAD, SIDES, encode, layout, padded_length, rows_of, type_ids
from quickbrown.hf.special_tokens import SpecialTokens
from quickbrown.text.files import NAMED
from quickbrown.text.tokenizer import Tokenizer
from quickbrown.types import UnknownOption

if TYPE_CHECKING:
    import tokenizers

UNLIMITED = int(1e30)  # what transformers gives for a model_max_length that nobody knows
_INPUTS = ("input_ids", "attention_mask")
_SPACED = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")

log = logging.getLogger(__name__)


class PreTrainedTokenizer(SpecialTokens, ChatTemplates):
    """A model's tokenizer. Made by `AutoTokenizer.from_pretrained`.

    core                  what `LLM` takes: the vocabulary, and the model's ends
    name_or_path          what it was made from
    padding_side          "left" or "right": where rows are padded unless a call says; `generate` takes either
    truncation_side       "left" or "right": where rows are cut
    model_max_length      how many tokens the model takes, 10**30 where that is not known
    model_input_names     what a call returns unless it says
    chat_template         the source of the model's chat template, several by name, or None
    init_kwargs           the settings that its files hold, for `save_pretrained`

    Calls see nothing of each other: how one cuts and pads is not kept. Any number of threads may call.
    """

    is_fast = True

    def __init__(
        self,
        core: Tokenizer,
        *,
        name_or_path: str = "",
        special_tokens: dict[str, str] | None = None,
        extra_special_tokens: Sequence[str] = (),
        chat_template: str | dict[str, str] | None = None,
        padding_side: str = "right",
        truncation_side: str = "right",
        model_max_length: int | float | None = None,
        model_input_names: Sequence[str] = _INPUTS,
        clean_up_tokenization_spaces: bool = False,
        init_kwargs: dict[str, Any] | None = None,
    ) -> None:
        self.core = core
        self.name_or_path = name_or_path
        self.named = dict(special_tokens or {})
        self.extra_special_tokens = list(extra_special_tokens)
        self.chat_template = chat_template
        for name, side in (("padding_side", padding_side), ("truncation_side", truncation_side)):
            if side not in SIDES:
                raise ValueError(f"{name} must be left or right, not {side!r}")
        self.padding_side = padding_side
        self.truncation_side = truncation_side
        limit = UNLIMITED if model_max_length is None else model_max_length
        if not isinstance(limit, (int, float)) or isinstance(limit, bool) or not limit >= 1:
            raise ValueError(f"model_max_length must be a number of at least 1, not {model_max_length!r}")
        self.model_max_length = int(min(limit, UNLIMITED))
        self.model_input_names = list(model_input_names)
        self.clean_up_tokenization_spaces = bool(clean_up_tokenization_spaces)
        self.init_kwargs = dict(init_kwargs or {})
        self._told_long = False

    def __repr__(self) -> str:
        added = "".join(f"\n\t{i}: {token!r}," for i, token in self.added_tokens_decoder.items())
        return (
            f"{type(self).__name__}(name_or_path={self.name_or_path!r}, vocab_size={self.vocab_size}, "
            f"model_max_length={self.model_max_length}, padding_side={self.padding_side!r}, "
            f"truncation_side={self.truncation_side!r}, special_tokens={self.special_tokens_map}, "
            f"added_tokens_decoder={{{added}\n}})"
        )

    # -- the vocabulary -------------------------------------------------------------------------------------------

    @property
    def backend_tokenizer(self) -> tokenizers.Tokenizer:
        return self.core.raw

    @property
    def vocab_size(self) -> int:
        """How many tokens there are without those that were added."""
        return int(self.core.raw.get_vocab_size(with_added_tokens=False))

    def __len__(self) -> int:
        """How many tokens there are."""
        return int(self.core.raw.get_vocab_size(with_added_tokens=True))

    def __bool__(self) -> bool:
        return True

    def get_vocab(self) -> dict[str, int]:
        """The id of each token."""
        return dict(self.core.raw.get_vocab(with_added_tokens=True))

    @property
    def vocab(self) -> dict[str, int]:
        return self.get_vocab()

    def vocabulary_changed(self) -> None:
        core = self.core
        self.core = Tokenizer(
            core.raw, eos_ids=core.eos_ids, bos_id=core.bos_id, add_bos=core.add_bos, vocab_size=core.vocab_size
        )

    @property
    def add_bos_token(self) -> bool:
        """Whether texts are begun with `bos_token`; may be assigned."""
        before, _ = self._around()
        return bool(before) and before[0] == self.bos_token_id

    @add_bos_token.setter
    def add_bos_token(self, value: bool) -> None:
        self._put_around(bool(value), self.add_eos_token)

    @property
    def add_eos_token(self) -> bool:
        """Whether texts are ended with `eos_token`; may be assigned."""
        _, after = self._around()
        return bool(after) and after[-1] == self.eos_token_id

    @add_eos_token.setter
    def add_eos_token(self, value: bool) -> None:
        self._put_around(self.add_bos_token, bool(value))

    def _around(self) -> tuple[list[int], list[int]]:
        """The tokens that are put before and after every text."""
        asked = self.core.raw.encode("a", add_special_tokens=True)
        mask = asked.special_tokens_mask
        if 0 not in mask:
            return [], []
        first, last = mask.index(0), len(mask) - mask[::-1].index(0)
        return asked.ids[:first], asked.ids[last:]

    def _put_around(self, bos: bool, eos: bool) -> None:
        from tokenizers.processors import TemplateProcessing

        named = [
            (self.bos_token, self.bos_token_id) if bos else None,
            (self.eos_token, self.eos_token_id) if eos else None,
        ]
        for name, token in zip(("bos_token", "eos_token"), named, strict=True):
            if token is not None and token[1] is None:
                raise ValueError(f"the tokenizer has no {name} to add; set tokenizer.{name} first")
        before, after = ([token[0]] if token else [] for token in named)
        single = [*before, "$A", *after]
        pair = [*single, *(f"{t}:1" for t in before), "$B:1", *(f"{t}:1" for t in after)]
        special = list(dict.fromkeys(token for token in named if token))
        self.core.raw.post_processor = TemplateProcessing(single=single, pair=pair, special_tokens=special)
        core = self.core
        bos_id = self.bos_token_id if bos else core.bos_id
        self.core = Tokenizer(core.raw, eos_ids=core.eos_ids, bos_id=bos_id, add_bos=bos, vocab_size=core.vocab_size)

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """How many tokens are put around a text, or around a pair."""
        return int(self.core.raw.num_special_tokens_to_add(pair))

    def convert_tokens_to_ids(self, tokens: str | Iterable[str]) -> Any:
        """The id of a token, or of each of several; that of `unk_token` for one that does not exist."""
        if isinstance(tokens, str):
            found = self.core.raw.token_to_id(tokens)
            return self.unk_token_id if found is None else found
        return [self.convert_tokens_to_ids(token) for token in tokens]

    def convert_ids_to_tokens(self, ids: Any, skip_special_tokens: bool = False) -> Any:
        """The token of an id, or of each of several, as the vocabulary writes it; None for an id that has none."""
        listed, several = _ids(ids)
        if several is None:
            return self.core.raw.id_to_token(listed[0])
        skipped = set(self.all_special_ids) if skip_special_tokens else set()
        return [self.core.raw.id_to_token(i) for i in listed if i not in skipped]

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """The text of tokens as the vocabulary writes them."""
        decoder = self.core.raw.decoder
        return " ".join(tokens) if decoder is None else str(decoder.decode(tokens))

    # -- texts to ids ---------------------------------------------------------------------------------------------

    def __call__(
        self,
        text: Any = None,
        text_pair: Any = None,
        *,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        stride: int = 0,
        is_split_into_words: bool = False,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_tensors: str | None = None,
        return_token_type_ids: bool | None = None,
        return_attention_mask: bool | None = None,
        return_overflowing_tokens: bool = False,
        return_special_tokens_mask: bool = False,
        return_offsets_mapping: bool = False,
        return_length: bool = False,
        verbose: bool = True,
        **unknown: Any,
    ) -> BatchEncoding:
        """The ids of a text, of a list of texts, or of pairs of texts: `input_ids` and `attention_mask` by name.

        text, text_pair      strings, or lists of as many; a list may hold pairs itself
        add_special_tokens   put the model's special tokens around each row
        padding              True or "longest": all rows to the longest one's length; "max_length"
        truncation           cut rows to max_length: True or "longest_first", "only_first", "only_second" of a pair
        max_length           given alone it cuts; the model's own limit where it is needed and not given
        stride               how many tokens of a cut row the next one begins with (return_overflowing_tokens)
        is_split_into_words  each text is a list of words
        pad_to_multiple_of   padded lengths are multiples of it
        padding_side         "left" or "right", in the place of the tokenizer's own
        return_tensors       "np" or "pt": arrays of shape (rows, length); None gives lists, of one text a flat one
        return_...           what else to return: `token_type_ids`, `attention_mask`, what was cut off as further rows
                             with `overflow_to_sample_mapping`, `special_tokens_mask`, `offset_mapping`, `length`
        verbose              log a warning, once, for a text longer than the model takes

        Raises UnknownOption, TypeError for what is no text, ValueError for arguments out of range, for padding without
        a `pad_token`, and for arrays of rows that differ in length.
        """
        for name in unknown:
            _refuse(name)
        if text is None:
            raise ValueError("there is no text; the first argument is a text, or a list of texts")
        rows, several = rows_of(text, text_pair, is_split_into_words)
        side = self.padding_side if padding_side is None else padding_side
        cut = (stride, pad_to_multiple_of, side, self.truncation_side, self.model_max_length)
        how = layout(padding, truncation, max_length, *cut)
        found, wholes = encode(self.core.raw, rows, how, is_split_into_words, add_special_tokens, self._pad())
        of = list(range(len(found)))
        if return_overflowing_tokens:
            of = [i for i, row in enumerate(found) for _ in (row, *row.overflowing)]
            found = [part for row in found for part in (row, *row.overflowing)]
        data: dict[str, Any] = {"input_ids": [row.ids for row in found]}
        if self._wants("token_type_ids", return_token_type_ids):
            data["token_type_ids"] = [type_ids(row, wholes[i]) for i, row in zip(of, found, strict=True)]
        if self._wants("attention_mask", return_attention_mask):
            data["attention_mask"] = [row.attention_mask for row in found]
        if return_special_tokens_mask:
            data["special_tokens_mask"] = [row.special_tokens_mask for row in found]
        if return_offsets_mapping:
            data["offset_mapping"] = [row.offsets for row in found]
        if return_length:
            data["length"] = [len(row.ids) for row in found]
        if return_overflowing_tokens:
            data["overflow_to_sample_mapping"] = of
        if max_length is None and verbose:
            self._warn_of_length(data["input_ids"])
        if not several and return_tensors is None and not return_overflowing_tokens:
            data = {name: rows[0] if isinstance(rows[0], list) else rows for name, rows in data.items()}
        return BatchEncoding(data, found, return_tensors)

    def _wants(self, name: str, asked: bool | None) -> bool:
        return name in self.model_input_names if asked is None else bool(asked)

    def _pad(self) -> tuple[int, str] | None:
        token, number = self.pad_token, self.pad_token_id
        return None if token is None or number is None else (number, token)

    def _warn_of_length(self, rows: Sequence[Sequence[int]]) -> None:
        longest = max(map(len, rows), default=0)
        if longest > self.model_max_length and not self._told_long:
            self._told_long = True
            log.warning("a text has %d tokens, more than the %d the model takes", longest, self.model_max_length)

    def encode(self, text: Any, text_pair: Any = None, **options: Any) -> Any:
        """The ids alone; `options` are those of a call."""
        return self(text, text_pair, **options)["input_ids"]

    def tokenize(
        self, text: str, pair: str | None = None, add_special_tokens: bool = False, **options: Any
    ) -> list[str]:
        """The tokens of a text, as the vocabulary writes them."""
        return self(text, pair, add_special_tokens=add_special_tokens, **options).tokens()

    def pad(
        self,
        encoded_inputs: Any,
        padding: bool | str = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | None = None,
        verbose: bool = True,
    ) -> BatchEncoding:
        """Rows of ids that are there, padded: a dict of lists as a call returns, or a list of such dicts.

        Raises ValueError as a call does.
        """
        if isinstance(encoded_inputs, (list, tuple)):
            names = encoded_inputs[0].keys() if encoded_inputs else ()
            encoded_inputs = {name: [row[name] for row in encoded_inputs] for name in names}
        if "input_ids" not in encoded_inputs:
            raise ValueError("pad() takes a dict with input_ids, or a list of such dicts, as a call returns")
        kind = kind_of(encoded_inputs["input_ids"])
        if kind == "list" and len(encoded_inputs["input_ids"]):
            kind = kind_of(encoded_inputs["input_ids"][0])
        data = {name: _listed(rows) for name, rows in encoded_inputs.items()}
        single = bool(data["input_ids"]) and not isinstance(data["input_ids"][0], list)
        if single:
            data = {name: [row] for name, row in data.items()}
        side = self.padding_side if padding_side is None else padding_side
        alone = padding if max_length is None or padding else "do_not_pad"
        how = layout(alone, None, max_length, 0, pad_to_multiple_of, side, "right", self.model_max_length)
        rows = data["input_ids"]
        if self._wants("attention_mask", return_attention_mask) and "attention_mask" not in data:
            data["attention_mask"] = [[1] * len(row) for row in rows]
        if how.padding and rows:
            if (pad := self._pad()) is None:
                raise ValueError(NO_PAD)
            length = padded_length(max(map(len, rows)), how)
            fill = {"input_ids": pad[0], "attention_mask": 0, "token_type_ids": 0, "special_tokens_mask": 1}
            for name in data.keys() & fill.keys():
                data[name] = [_padded(row, length - len(row), fill[name], side) for row in data[name]]
        kind = return_tensors or (kind if kind != "list" else None)  # type: ignore[assignment]
        if single and return_tensors is None:
            data = {name: rows[0] for name, rows in data.items()}
        return BatchEncoding(data, tensor_type=kind)

    # -- ids to texts ---------------------------------------------------------------------------------------------

    def decode(
        self, token_ids: Any, skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool | None = None
    ) -> Any:
        """The text of ids, or of each row of several: lists, arrays or tensors.

        skip_special_tokens           leave special tokens out
        clean_up_tokenization_spaces  take out the blanks before punctuation; nothing is done for vocabularies of byte
                                      pairs, nearly all there are, whose texts it would spoil

        Ids that no token has are no text. Raises ValueError for negative ids, TypeError for what is no id.
        """
        ids, several = _ids(token_ids)
        rows = ids if several else [ids]
        clean = (
            self.clean_up_tokenization_spaces if clean_up_tokenization_spaces is None else clean_up_tokenization_spaces
        )
        clean = clean and type(self.core.raw.model).__name__ != "BPE"
        texts = [self.core.raw.decode(row, skip_special_tokens=skip_special_tokens) for row in rows]
        if clean:
            texts = [_cleaned(text) for text in texts]
        return texts if several else texts[0]

    def batch_decode(
        self, sequences: Any, skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool | None = None
    ) -> list[str]:
        """The text of each row of ids, as `decode` gives it; always a list."""
        found = self.decode(sequences, skip_special_tokens, clean_up_tokenization_spaces)
        return found if isinstance(found, list) else [found]

    # -- files ----------------------------------------------------------------------------------------------------

    def save_pretrained(self, save_directory: str | os.PathLike[str], **unknown: Any) -> tuple[str, ...]:
        """Write tokenizer.json, tokenizer_config.json and the chat templates into a folder; returns their paths.

        `AutoTokenizer.from_pretrained` reads it, here and in transformers.
        """
        for name in unknown:
            raise UnknownOption(name, ["save_directory"])
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        written = [folder / "tokenizer_config.json", folder / "tokenizer.json"]
        written[0].write_text(
            json.dumps(self._settings(), indent=2, sort_keys=True, ensure_ascii=False) + "\n", "utf-8"
        )
        self.core.raw.save(str(written[1]))
        templates = {"default": self.chat_template} if isinstance(self.chat_template, str) else self.chat_template or {}
        for name, source in templates.items():
            if not name or Path(name).name != name or name.startswith("."):
                raise ValueError(f"a chat template named {name!r} cannot be a file")
            path = folder / "chat_template.jinja" if name == "default" else folder / "chat_templates" / f"{name}.jinja"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(source.encode())
            written.append(path)
        return tuple(map(str, written))

    def _settings(self) -> dict[str, Any]:
        gone = {"added_tokens_decoder", "chat_template", "add_bos_token", "add_eos_token", *NAMED}
        kept = {name: value for name, value in self.init_kwargs.items() if name not in gone}
        return (
            kept
            | self.named
            | {
                "extra_special_tokens": self.extra_special_tokens,
                "model_max_length": self.model_max_length,
                "padding_side": self.padding_side,
                "truncation_side": self.truncation_side,
                "model_input_names": self.model_input_names,
                "clean_up_tokenization_spaces": self.clean_up_tokenization_spaces,
                "tokenizer_class": "PreTrainedTokenizerFast",
            }
        )


def _refuse(name: str) -> NoReturn:
    """Raise for an argument of a call that nothing honours."""
    if name in ("text_target", "text_pair_target"):
        raise ValueError(f"{name} is for models that read one text and write another; these go on with one")
    known = inspect.signature(PreTrainedTokenizer.__call__).parameters
    raise UnknownOption(name, [option for option in known if option not in ("self", "unknown")])


def _listed(value: Any) -> Any:
    """Arrays and tensors as lists, also those in a list."""
    if kind_of(value) != "list":
        return to_numpy(value).tolist()
    return [_listed(item) for item in value] if isinstance(value, (list, tuple)) else value


def _ids(value: Any) -> tuple[list[Any], bool | None]:
    """Ids in lists, and whether there are several rows; None for a single id. Raises TypeError, ValueError."""
    listed = _listed(value)
    if not isinstance(listed, list):
        return [_id(listed)], None
    if listed and all(isinstance(row, list) for row in listed):
        return [[_id(i) for i in row] for row in listed], True
    return [_id(i) for i in listed], False


def _id(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"ids must be whole numbers, or rows of them, not {type(value).__name__}")
    if not 0 <= value < 1 << 32:
        raise ValueError(f"{value} is no token's id; ids are 0 or more")
    return value


def _padded(row: list[int], many: int, fill: int, side: str) -> list[int]:
    return [fill] * many + row if side == "left" else row + [fill] * many


def _cleaned(text: str) -> str:
    for spaced in _SPACED:
        text = text.replace(spaced, spaced.strip())
    return text
